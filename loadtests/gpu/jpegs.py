"""Step 2: JPEGs to the graph's input, on all cores, and on the GPU in batches, up to the graph's answers.

On the GPU nvImageCodec decodes a batch, a graph resizes it into the rows of the model's input, and the model runs,
all in one stream, as in the service: no pixel comes back to the host. It pays where it is quicker than all cores, and
is right where the answers agree with those to the CPU's pixels.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from loadtests.album import encode, shrink
from loadtests.gpu.bench import Bench
from loadtests.gpu.decode import decode, prepare
from loadtests.gpu.engine import (
    CUDA,
    DecodeError,
    JpegDecoder,
    Model,
    Stream,
    Tensors,
    Tuning,
    difference,
    need_cuda,
    requested,
)
from loadtests.gpu.plan import Plan

_BATCHES = (1, 8, 32, 64)
_QUALITY = 94


def measure(bench: Bench, plan: Plan) -> None:
    """Do one of the parts: `cores`, `gpu`."""
    for name in plan.models:
        model = Model(Path(plan.root), name)
        jpeg = shrink(next((path for path in model.golden if path.stem == "astronaut"), model.golden[0]))
        if plan.part == "cores":
            decode(bench.off_gpu(), name, model.card.recipe, jpeg)
        else:
            need_cuda(plan.device)
            bench.check(name, "answers of the GPU's and the CPU's pixels", partial(_answers, model))
            for batch in _BATCHES[:2] if plan.quick else _BATCHES:
                _batch(bench, model, [jpeg] * batch)


def _batch(bench: Bench, model: Model, jpegs: Sequence[bytes]) -> None:
    load = f"batch {len(jpegs)}"
    try:
        gpu = GpuJpegs(model, len(jpegs))
    except Exception as error:  # it is not installed, finds no GPU, or the graph does not load
        bench.fail(model.name, "GPU", load, error)
        return
    for way, run in (
        ("GPU: decode", gpu.decode),
        ("GPU: decode and resize", gpu.prepare),
        ("GPU: decode, resize and run", gpu.run),
    ):
        bench.attempt(model.name, way, load, partial(bench.measure, partial(run, jpegs), len(jpegs)))


def _answers(model: Model) -> str:
    """Compare answers to the golden photos, as JPEGs, with those to the pixels of the service's fast mode."""
    jpegs = [_jpeg(path) for path in model.golden]
    pixels = np.stack([prepare(jpeg, model.card.recipe, exact=False)[0] for jpeg in jpegs])
    with model.lanes((len(jpegs),)) as lanes:
        expected = lanes.run({"images": pixels})
    return difference(expected, GpuJpegs(model, len(jpegs)).run(jpegs))


def _jpeg(path: Path) -> bytes:
    with Image.open(path) as image:
        return encode(image.convert("RGB"), _QUALITY)


class GpuJpegs:
    """From batches of JPEGs to a model's answers, on one GPU and in one stream.

    Args:
        model: of the store.
        batch: images of a run.
    """

    def __init__(self, model: Model, batch: int) -> None:
        recipe = model.card.recipe
        self._stream = Stream(0)
        self._jpegs = JpegDecoder(recipe, self._stream)
        providers = requested(CUDA, 0, Tuning(), batch=batch, stream=self._stream.handle)
        options = ort.SessionOptions()
        options.add_free_dimension_override_by_name("batch", batch)
        self._session = ort.InferenceSession(str(model.path), options, providers=providers, enable_fallback=0)
        self._names = [output.name for output in self._session.get_outputs()]
        shape = (batch, recipe.height, recipe.width, 3)
        self._rows = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, "cuda", 0)
        self._size = int(np.prod(shape[1:]))

    def decode(self, jpegs: Sequence[bytes]) -> None:
        """Decode to the GPU's memory, uint8 [h, w, 3] RGB, and wait.

        Raises:
            DecodeError: one of them could not be decoded.
        """
        images = self._jpegs.decode(jpegs)
        if None in images:
            raise DecodeError(f"image {images.index(None)} of {len(images)} cannot be decoded")
        self._stream.wait()

    def prepare(self, jpegs: Sequence[bytes]) -> None:
        """Decode and resize to the rows of the graph's input, and wait."""
        self._fill(jpegs)
        self._stream.wait()

    def run(self, jpegs: Sequence[bytes]) -> Tensors:
        """Decode, resize and run, and copy the answers to the host."""
        self._fill(jpegs)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("images", self._rows)
        for name in self._names:
            binding.bind_output(name, "cuda", 0)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._names, binding.copy_outputs_to_cpu(), strict=True))

    def _fill(self, jpegs: Sequence[bytes]) -> None:
        first = self._rows.data_ptr()
        self._jpegs.fill([(jpeg, first + number * self._size) for number, jpeg in enumerate(jpegs)])
