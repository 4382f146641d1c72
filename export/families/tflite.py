"""Float TensorFlow Lite graphs, rebuilt in torch op by op. Read with the `tflite` package; no TensorFlow is needed.

The ops of DeepLabv3 and MobileNet backbones are known; another op is an entry in `_OPS`.
"""

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from export.network import Network, RawOutputs
from export.padding import SameConv2d
from zoo.errors import ExportError
from zoo.model_card import ModelCard

_ACTIVATIONS: dict[int, Callable[[], nn.Module]] = {
    tflite.ActivationFunctionType.NONE: nn.Identity,
    tflite.ActivationFunctionType.RELU: nn.ReLU,
    tflite.ActivationFunctionType.RELU6: nn.ReLU6,
}
_DTYPES = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.INT32: np.int32}


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Rebuild the graph in `weights`: float32 [1, H, W, 3] in, `logits` [1, h, w, C] or [1, C] out.

    The reference is the LiteRT interpreter on the same file where it is installed (`ai-edge-litert`), else torch.

    Raises:
        ExportError: not a TFLite file, another input than the recipe's, or an op, option or dtype that is not known.
    """
    path = files["weights"]
    want = (1, card.recipe.height, card.recipe.width, 3)
    with _readable(path):
        graph = Graph(path)
        if (takes := graph.shape(graph.input)) != want:
            raise ExportError(f"{path}: the graph takes {takes}, but the card's recipe makes {want}")
        module = TFLiteNetwork(graph).eval()
    versions = {"tflite": importlib.metadata.version("tflite")}
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        return Network(module, f"torch {torch.__version__}", versions=versions, original=False)
    name = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
    # Without delegates: TFLite's own kernels, one op at a time, are the plainest reference.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    return Network(module, name, _interpreter(interpreter), versions)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of reading into an `ExportError`: places in a file that is cut off lead anywhere."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{path}: not a TensorFlow Lite file that can be read, it is damaged: {error!r}") from error


def _interpreter(interpreter: Any) -> Callable[[npt.NDArray[np.float32]], RawOutputs]:
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: npt.NDArray[np.float32]) -> RawOutputs:
        answers = []
        for image in np.moveaxis(x, 1, -1):
            interpreter.set_tensor(entry, np.ascontiguousarray(image[None]))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(exit_))
        return {"logits": np.moveaxis(np.concatenate(answers), -1, 1)}

    return run


class Graph:
    """The first subgraph of a TFLite file: its tensors and operators by index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        if not tflite.Model.ModelBufferHasIdentifier(data, 0):
            raise ExportError(f"{path}: not a TensorFlow Lite file (its bytes 4 to 7 are {data[4:8]!r}, not b'TFL3')")
        self._model = tflite.Model.GetRootAs(data, 0)
        self._graph = self._model.Subgraphs(0)
        if self._graph.InputsLength() != 1 or self._graph.OutputsLength() != 1:
            counts = f"{self._graph.InputsLength()} inputs and {self._graph.OutputsLength()} outputs"
            raise ExportError(f"{path}: the graph has {counts}, expected one of each")
        self.input: int = self._graph.Inputs(0)
        self.output: int = self._graph.Outputs(0)

    def operators(self) -> "list[Operator]":
        return [Operator(self, self._graph.Operators(i), i) for i in range(self._graph.OperatorsLength())]

    def op_name(self, operator: Any) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        if code.CustomCode():
            return f"custom op {code.CustomCode().decode()}"
        # Files from before 2020 have the op in the deprecated field, newer ones in both unless it is over 127.
        return str(tflite.opcode2name(max(code.BuiltinCode(), code.DeprecatedBuiltinCode())))

    def shape(self, index: int) -> tuple[int, ...]:
        tensor = self._graph.Tensors(index)
        return tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))

    def constant(self, index: int) -> npt.NDArray[Any]:
        """Return a tensor that the file stores: float32 weights, or int32 sizes."""
        tensor = self._graph.Tensors(index)
        if tensor.Type() not in _DTYPES:
            raise ExportError(f"{self.path}: {tensor.Name().decode()} is quantised; only float graphs can be read")
        data = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise ExportError(
                f"{self.path}: {tensor.Name().decode()} is computed, but only a constant is understood here"
            )
        return data.view(_DTYPES[tensor.Type()]).reshape(self.shape(index))


class Operator:
    """One operator of a graph: its name, the tensors that it reads and writes, its options."""

    def __init__(self, graph: Graph, operator: Any, index: int) -> None:
        self.graph = graph
        self.name = graph.op_name(operator)
        self.where = f"{graph.path}: operator {index}, {self.name}"
        inputs = (operator.Inputs(i) for i in range(operator.InputsLength()))
        self.inputs: list[int] = [i for i in inputs if i >= 0]  # -1 stands for an input that is left out
        self.output: int = operator.Outputs(0)
        self._table = operator.BuiltinOptions()

    def options(self, kind: type[Any]) -> Any:
        options = kind()
        options.Init(self._table.Bytes, self._table.Pos)
        return options

    def activation(self, options: Any) -> nn.Module:
        code = options.FusedActivationFunction()
        if code not in _ACTIVATIONS:
            raise ExportError(f"{self.where}: the fused activation number {code} is not known")
        return _ACTIVATIONS[code]()


class TFLiteNetwork(nn.Module):
    """float32 [N, 3, H, W] -> `logits`: TFLite's channels come last, torch's second."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._input, self._output = graph.input, graph.output
        self._steps = nn.ModuleList()
        self._wires: list[tuple[list[int], int]] = []
        computed = {graph.input}
        for operator in graph.operators():
            if operator.name not in _OPS:
                raise ExportError(f"{operator.where} is not known. Known are {', '.join(_OPS)}")
            step, inputs = _OPS[operator.name](operator)
            if not computed.issuperset(inputs):
                raise ExportError(f"{operator.where}: reads a constant where only computed tensors are understood")
            self._steps.append(step)
            self._wires.append((inputs, operator.output))
            computed.add(operator.output)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        values = {self._input: x}
        for step, (inputs, output) in zip(self._steps, self._wires, strict=True):
            values[output] = step(*(values[i] for i in inputs))
        return {"logits": values[self._output]}


class _Add(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.activation(a + b)  # type: ignore[no-any-return]


class _Concatenate(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, *parts: Tensor) -> Tensor:
        return self.activation(torch.cat(parts, 1))  # type: ignore[no-any-return]


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int], align_corners: bool) -> None:
        super().__init__()
        self.size, self.align_corners = size, align_corners

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == self.size:  # DeepLab resizes its logits to themselves first
            return x
        return F.interpolate(x, self.size, mode="bilinear", align_corners=self.align_corners)


Step = tuple[nn.Module, list[int]]
"""A module and the tensors that it takes when it runs; weights are in the module."""


def _convolution(operator: Operator) -> Step:
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    options = operator.options(tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions)
    x, weights, *bias = operator.inputs
    # CONV_2D stores [out, height, width, in], DEPTHWISE_CONV_2D [1, height, width, out].
    kernel = operator.graph.constant(weights)
    kernel = kernel.transpose(3, 0, 1, 2) if depthwise else kernel.transpose(0, 3, 1, 2)
    channels = operator.graph.shape(x)[3]
    same = options.Padding() == tflite.Padding.SAME
    convolution = (SameConv2d if same else nn.Conv2d)(
        channels,
        kernel.shape[0],
        kernel.shape[2:],
        stride=(options.StrideH(), options.StrideW()),
        dilation=(options.DilationHFactor(), options.DilationWFactor()),
        groups=channels // kernel.shape[1],
        bias=bool(bias),
    )
    state = {"weight": torch.from_numpy(kernel.copy())}
    if bias:
        state["bias"] = torch.from_numpy(operator.graph.constant(bias[0]).copy())
    convolution.load_state_dict(state)
    return nn.Sequential(convolution, operator.activation(options)), [x]


def _average_pool(operator: Operator) -> Step:
    options = operator.options(tflite.Pool2DOptions)
    if options.Padding() != tflite.Padding.VALID:
        raise ExportError(f"{operator.where}: SAME padding is not known for pooling")
    pool = nn.AvgPool2d((options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW()))
    return nn.Sequential(pool, operator.activation(options)), operator.inputs


def _resize_bilinear(operator: Operator) -> Step:
    options = operator.options(tflite.ResizeBilinearOptions)
    if options.AlignCorners() == options.HalfPixelCenters():
        raise ExportError(f"{operator.where}: needs either align_corners or half_pixel_centers")
    x, size = operator.inputs
    height, width = operator.graph.constant(size).tolist()
    return _Resize((height, width), bool(options.AlignCorners())), [x]


def _add(operator: Operator) -> Step:
    return _Add(operator.activation(operator.options(tflite.AddOptions))), operator.inputs


def _concatenate(operator: Operator) -> Step:
    options = operator.options(tflite.ConcatenationOptions)
    if options.Axis() not in {3, -1} or len(operator.graph.shape(operator.output)) != 4:
        raise ExportError(f"{operator.where}: only channels of images can be concatenated, not axis {options.Axis()}")
    return _Concatenate(operator.activation(options)), operator.inputs


_OPS: dict[str, Callable[[Operator], Step]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONCATENATION": _concatenate,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "RESIZE_BILINEAR": _resize_bilinear,
}
