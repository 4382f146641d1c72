"""What must be true of every exported graph, for a GPU: the tests export through here instead of `export.convert`."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from export.batch import BATCH, check_batch
from export.convert import convert as convert_unchecked

BATCHES = (1, 3)  # it was traced with 2
_DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
ON_THE_CPU = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero", "Compress", "Unique", "If", "Loop"}
"""Operators that ONNX Runtime's CUDA provider leaves to the CPU, or whose shapes the CPU must know first."""

_checked: set[bytes] = set()  # hashes of graphs


def convert(*arguments, **options) -> onnx.ModelProto:
    """As `export.convert.convert`, and check the graph."""
    model = convert_unchecked(*arguments, **options)
    if (sha256 := hashlib.sha256(model.SerializeToString()).digest()) not in _checked:
        check_any_batch(model)
        _checked.add(sha256)
    return model


def check_any_batch(model: onnx.ModelProto) -> None:
    """Outputs that were allocated before can be bound for any batch; of a fixed one, nothing is left to the CPU."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    check_batch(session)
    (image,) = session.get_inputs()
    for size in BATCHES:
        binding = session.io_binding()
        images = np.random.default_rng(size).integers(0, 256, (size, *image.shape[1:]), np.uint8)
        binding.bind_cpu_input(image.name, images)
        for output in session.get_outputs():
            empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, *output.shape[1:]], _DTYPES[output.type])
            binding.bind_ortvalue_output(output.name, empty)
        session.run_with_iobinding(binding)
    fixed = with_batch(model, 4)
    # A loop over the images, `one_by_one`, is a Scan: what is in it is not looked at.
    assert not ON_THE_CPU.intersection(node.op_type for node in fixed.graph.node)


def with_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The graph as ONNX Runtime has it once the batch is fixed, as a session for a GPU does."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.add_free_dimension_override_by_name(BATCH, size)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "fixed.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)
