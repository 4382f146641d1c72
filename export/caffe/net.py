"""Caffe's files as a list of layers: both generations of the format, and only the layers that lead to the answer.

`export.families.caffe` calls `read_net` for a .caffemodel with or without its deploy .prototxt.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from export.protobuf import read_message, read_schema
from zoo.errors import ExportError

Blob = npt.NDArray[np.float32]
NetParameter = read_schema(Path(__file__).with_name("caffe.binpb"))["NetParameter"]
_JUDGES = {"softmax", "softmaxwithloss", "softmaxloss", "accuracy", "argmax"}
"""Kinds of layers after the logits, which are their first input: the head adds its own softmax."""
_SHAPED = {"dropout", "flatten", "split"}
"""Kinds of layers that leave probabilities what they are."""
_TEST = 1  # the phase


class Layer(NamedTuple):
    """One layer as its file describes it.

    Attributes:
        kind: its type in lower case without underscores: `InnerProduct` and the older `INNER_PRODUCT` are one.
        bottoms, tops: names of the blobs that it reads and writes, often the same.
        blobs: its weights.
        message: LayerParameter or V1LayerParameter, whose parameters have the same names.
        where: for error messages.
    """

    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[Blob, ...]
    message: Any
    where: str


class Net(NamedTuple):
    """Layers in the order in which they run, from the blob `image` to the blob `answer`."""

    image: str
    answer: str
    layers: tuple[Layer, ...]


def read_net(weights: Path, prototxt: Path | None, output: str | None) -> Net:
    """Read a classifier.

    A .caffemodel describes its layers too, those of the training included: data and losses are left out, and so are
    branches that do not lead to the answer.

    Args:
        weights: the .caffemodel.
        prototxt: where given, the layers are its, and the .caffemodel's weights go to those of the same name.
        output: name of the blob with the logits. None: what the last layer judges, or what it writes. Where that is
            made by a softmax, the answer is what the softmax reads.

    Raises:
        ExportError: a file is not what it should be, or no layers lead from one image to the answer.
    """
    trained = _layers(weights, read_message(weights, NetParameter, "a Caffe model"))
    layers = trained
    if prototxt is not None:
        blobs = {layer.message.name: layer.blobs for layer in trained}
        layers = [
            layer._replace(blobs=blobs.get(layer.message.name, ())) for layer in _layers(prototxt, _read_text(prototxt))
        ]
    answer = output or _logits(layers)
    needed, chosen = {answer}, []
    for layer in reversed(layers):
        if needed.intersection(layer.tops) and layer.bottoms:
            chosen.append(layer)
            needed = needed.difference(layer.tops).union(layer.bottoms)
    if not chosen:
        raise ExportError(f"{prototxt or weights}: no layer writes {answer!r}: correct the option `output` in the card")
    if len(needed) != 1:
        raise ExportError(f"{prototxt or weights}: {answer!r} is computed from {sorted(needed)}, expected one image")
    image, layers = needed.pop(), chosen[::-1]
    ends = [index for index, layer in enumerate(layers) if layer.kind not in _SHAPED]
    if ends and layers[ends[-1]].kind == "softmax" and layers[ends[-1]].bottoms != (image,):
        answer, layers = layers[ends[-1]].bottoms[0], layers[: ends[-1]]
    return Net(image, answer, tuple(layers))


def declared_input(prototxt: Path, name: str) -> tuple[int, int, int] | None:
    """Return channels, height and width of the input blob `name` of a deploy file, or None where it does not say.

    Raises:
        ExportError: not a Caffe prototxt.
    """
    net = _read_text(prototxt)
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes = shapes or [list(net.input_dim[start : start + 4]) for start in range(0, len(net.input_dim), 4)]
    declared = dict(zip(net.input, shapes, strict=False))
    for layer in net.layer:
        if layer.type == "Input":
            declared |= zip(layer.top, (list(shape.dim) for shape in layer.input_param.shape), strict=False)
    shape = declared.get(name, [])
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 and min(shape) > 0 else None


def trained_pixels(weights: Path) -> tuple[tuple[float, ...], float] | None:
    """Return what a .caffemodel was trained with: the means that were subtracted, in BGR order, and the scale after it.

    None where its data layers have neither; many name a file of means instead.
    """
    net = read_message(weights, NetParameter, "a Caffe model")
    for layer in (*net.layers, *net.layer):
        given = layer.transform_param
        told = len(given.mean_value) in {1, 3} or (given.HasField("scale") and not given.mean_file)
        if told and given.scale > 0:
            return tuple(given.mean_value) or (0.0,), given.scale
    return None


def _read_text(path: Path) -> Any:
    message = NetParameter()
    try:
        # Fields that only matter to the training are not in the schema.
        text_format.Parse(path.read_text("utf-8-sig"), message, allow_unknown_field=True)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise ExportError(f"{path}: not a Caffe prototxt: {error}") from error
    return message


def _layers(path: Path, net: Any) -> list[Layer]:
    found = []
    for index, message in enumerate([*net.layers, *net.layer]):
        name = message.DESCRIPTOR.fields_by_name["type"].enum_type
        kind = name.values_by_number[message.type].name if name else str(message.type)
        where = f"{path}: layer {index}, {kind} {message.name!r}"
        if _at_test_time(message):
            blobs = tuple(_array(blob, where) for blob in message.blobs)
            kind = kind.replace("_", "").lower()
            found.append(Layer(kind, tuple(message.bottom), tuple(message.top), blobs, message, where))
    if not found:
        raise ExportError(
            f"{path}: not a Caffe model: it has no layers. Where it is older than 2014, convert it with Caffe's "
            "upgrade_net_proto_binary or upgrade_net_proto_text first"
        )
    return found


def _at_test_time(message: Any) -> bool:
    phases = {rule.phase for rule in message.include if rule.HasField("phase")}
    return (not phases or _TEST in phases) and all(rule.phase != _TEST for rule in message.exclude)


def _array(blob: Any, where: str) -> Blob:
    shape = tuple(blob.shape.dim) or (-1,)  # the older generation has four sizes instead; the layer finds out
    try:
        values = np.frombuffer(blob.data, "<f4").reshape(shape)
    except ValueError as error:
        raise ExportError(
            f"{where}: a blob of {shape} has {len(blob.data) / 4:g} floats: the file is damaged"
        ) from error
    if not np.isfinite(values).all():
        raise ExportError(f"{where}: its weights are not all finite: the file is damaged")
    return values


def _logits(layers: Sequence[Layer]) -> str:
    last = layers[-1]
    return last.bottoms[0] if last.kind in _JUDGES and last.bottoms else (*last.tops, "")[0]
