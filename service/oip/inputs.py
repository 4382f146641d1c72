"""What the protocol makes of a model's answer: rows of the graph's outputs, and the task's result as JSON."""

from collections.abc import Sequence

import msgspec
import numpy as np

from service.engine.binding import Array, Tensors
from service.engine.image_buffer import Image
from service.engine.job import Input
from service.models.inputs import ImageInput
from service.oip.describe import RESULT
from zoo.served_card import ServedCard

_encode = msgspec.json.Encoder().encode


class ImageOutputs(Input[Tensors]):
    """An image that is answered with one row of the graph's outputs, its result, or both.

    Args:
        image: the image.
        names: of the outputs, in the order of the answer. `result` is BYTES, the JSON of the image's result.
    """

    __slots__ = ("_image", "_names")

    def __init__(self, image: ImageInput, names: Sequence[str]) -> None:
        self._image = image
        self._names = names

    def prepare(self, out: Image) -> None:
        """Prepare the image."""
        self._image.prepare(out)

    def answer(self, outputs: Tensors, row: int) -> Tensors:
        """Cut out the row, [1, ...] of each output."""
        found = {name: outputs[name][row : row + 1] for name in self._names if name != RESULT}
        if RESULT in self._names:
            found[RESULT] = np.array([_encode(self._image.answer(outputs, row))], object)
        return found


class TensorRows(Input[Tensors]):
    """A request's tensors, which are answered with the graph's outputs for their rows.

    Args:
        tensors: all inputs of the graph by name, each [rows, ...].
        rows: at least 1.
    """

    __slots__ = ("rows", "shapes", "tensors")

    def __init__(self, tensors: Tensors, rows: int) -> None:
        self.tensors = tensors
        self.rows = rows
        self.shapes = tuple([value.shape[1:] for value in tensors.values()])

    def answer(self, outputs: Tensors, row: int) -> Tensors:
        """Cut out the rows, with texts as bytes."""
        found = {name: value[row : row + self.rows] for name, value in outputs.items()}
        return {name: _as_bytes(value) if value.dtype.kind == "O" else value for name, value in found.items()}


def output_names(card: ServedCard, *, encoded: bool) -> tuple[str, ...]:
    """What an image is answered with where nothing is asked for: its result if it is encoded, else all outputs."""
    return (RESULT,) if encoded else tuple(output.name for output in card.outputs)


def _as_bytes(texts: Array) -> Array:
    array = np.empty(texts.size, object)
    array[:] = [str(text).encode() for text in texts.ravel()]
    return array.reshape(texts.shape)
