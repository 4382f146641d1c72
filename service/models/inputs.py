"""The inputs of jobs, images (encoded, pixels or parts) and rows of tensors, and how their answers are made.

The predictor and the dataplane submit them. The self-test and `evaluation` run them without a queue.
"""

from abc import abstractmethod
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from service.arrays import Array, Image, Tensors, objects
from service.engine.assembly import Run
from service.engine.job import Input
from service.engine.pieces import joined, pieces_of
from service.results import Box, ImageSize, Result
from service.settings import Settings
from service.tasks import TASKS, operation_of
from service.vision import decode
from service.vision.decoded import DecodedImage
from service.vision.outputs import encode_output
from service.vision.resize import fit
from zoo.card import Recipe
from zoo.recipe import Placement, placement
from zoo.served_card import AnyServed, ServedCard

RESULT = "result"  # the name of the output with the JSON of an image's result
PNG = "png"  # the name of the output with the encoded image of a graph that answers with one
_MADE = (RESULT, PNG)
_encode = msgspec.json.Encoder().encode


class ImageInput(Input[Result]):
    """An image whose answer is the typed result of the task that its options belong to.

    Graphs with a recipe and without a task have no typed result, and no options: their outputs are answered, see
    `ImageOutputs`.
    """

    __slots__ = ("_card", "_options", "_placement")

    def __init__(self, card: AnyServed, options: Struct | None) -> None:
        self._card = card
        self._options = options
        self._placement: Placement | None = None  # the image's position and scale in the graph's input

    @property
    def light(self) -> bool:  # type: ignore[override]  # an attribute of the base class
        """Whether the answer that the options ask for takes next to no time."""
        return self._options is not None and TASKS[operation_of(self._options)].light(self._options)

    @abstractmethod
    def write(self, out: Image, *, jpegs: bool = False) -> int:
        """Write the graph's input, or the image's file, into `out`, see `Input.write`. Called once, before `answer`."""

    def answer(self, outputs: Tensors, row: int) -> Result:
        """Make the image's result from row `row` of a batch's outputs."""
        card, placement, options = self._card, self._placement, self._options
        assert placement is not None  # noqa: S101 - `write` was called before
        assert isinstance(card, ServedCard) and options is not None  # noqa: S101, PT018 - only those have a task
        operation = operation_of(options)
        predictions = TASKS[operation].answer(outputs, row, card, placement, options)
        return Result(card.name, card.version, operation, ImageSize(placement.width, placement.height), predictions)

    def outputs(self, names: Sequence[str]) -> Input[Tensors]:
        """Make the input whose answer is these outputs of the graph, or the result, for this image."""
        return ImageOutputs(self, names)

    def alone(self, run: Run, *, jpegs: bool = False) -> Result:
        """Answer the image on the calling thread, without a queue; raises `RequestError` if it cannot be decoded.

        Args:
            run: computes it.
            jpegs: it decodes JPEGs, too.
        """
        recipe = recipe_of(self._card)
        rows = np.empty((1, recipe.height, recipe.width, 3), np.uint8)
        length = self.write(rows[0], jpegs=jpegs)
        return self.answer(run({"images": joined([*pieces_of(rows, np.array([length]), 0, 1)])}), 0)

    def encoded(self, outputs: Tensors, row: int) -> bytes:
        """Encode the image of row `row` of the output `image` as PNG."""
        assert self._placement is not None  # noqa: S101 - `write` was called before
        recipe = recipe_of(self._card)
        return encode_output(outputs["image"][row], self._placement, (recipe.height, recipe.width))


class EncodedImage(ImageInput):
    """An encoded image in any format that `vision.decode` reads.

    Args:
        data: the encoded image.
        card: of the model.
        options: of the request's task; None for a graph without one.
        settings: how images are resized, and how large they may be.
    """

    __slots__ = ("_data", "_settings")

    def __init__(self, data: bytes, card: AnyServed, options: Struct | None, settings: Settings) -> None:
        super().__init__(card, options)
        self._data = data
        self._settings = settings

    def write(self, out: Image, *, jpegs: bool = False) -> int:
        """Decode the image and resize it into `out`; or leave a JPEG there, if it fits and the run can decode it."""
        data, recipe = self._data, recipe_of(self._card)
        image = decode.EncodedImage(data, self._settings.max_pixels)
        self._data = b""  # frees the encoded image while the pixels wait for their run
        if jpegs and len(data) <= out.nbytes and image.is_plain_jpeg:
            self._placement = placement(recipe, image.width, image.height)
            out.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
            return len(data)
        _, self._placement = fit(image, recipe, exact=self._settings.pixels == "exact", out=out)
        return 0


class PixelArray(ImageInput):
    """The pixels of the graph's input, uint8 [H, W, 3]. Boxes and masks refer to these pixels."""

    __slots__ = ("_pixels",)

    def __init__(self, pixels: Image, card: AnyServed, options: Struct | None) -> None:
        super().__init__(card, options)
        self._pixels = pixels
        height, width, _ = pixels.shape
        self._placement = Placement(width, height, 1.0, 1.0, 0.0, 0.0)

    def write(self, out: Image, *, jpegs: bool = False) -> int:  # noqa: ARG002 - there is no file
        """Copy the pixels into `out`."""
        out[:] = self._pixels
        return 0


class ImageCut(ImageInput):
    """A part of an image that was decoded for several jobs. Boxes and masks refer to the part.

    Args:
        image: as it was decoded.
        box: of the part, xyxy in pixels of the image, within it; rounded to whole pixels, at least one.
        card: of the model.
        options: of the request's task.
        settings: how images are resized.
    """

    __slots__ = ("_box", "_image", "_settings")

    def __init__(self, image: DecodedImage, box: Box, card: ServedCard, options: Struct, settings: Settings) -> None:
        super().__init__(card, options)
        self._image: DecodedImage | None = image
        self._box = box
        self._settings = settings

    def write(self, out: Image, *, jpegs: bool = False) -> int:  # noqa: ARG002 - there is no file
        """Resize the part into `out`."""
        assert self._image is not None  # noqa: S101 - `write` is called once
        exact = self._settings.pixels == "exact"
        _, self._placement = fit(self._image.cut(self._box), recipe_of(self._card), exact=exact, out=out)
        self._image = None  # the pixels are freed with the last part that needs them
        return 0


class ImageOutputs(Input[Tensors]):
    """An image whose answer is one row of the graph's outputs, its result, or both.

    Args:
        image: the image.
        names: of the outputs, in the order of the answer. `result` is BYTES, the JSON of the image's result; `png` is
            BYTES, the image that the graph answers with.
    """

    __slots__ = ("_image", "_names")

    def __init__(self, image: ImageInput, names: Sequence[str]) -> None:
        self._image = image
        self._names = names

    def write(self, out: Image, *, jpegs: bool = False) -> int:
        """Write the image, or its file."""
        return self._image.write(out, jpegs=jpegs)

    def answer(self, outputs: Tensors, row: int) -> Tensors:
        """Return the image's row, [1, ...], of each output."""
        found = {name: outputs[name][row : row + 1] for name in self._names if name not in _MADE}
        if RESULT in self._names:
            found[RESULT] = np.array([_encode(self._image.answer(outputs, row))], object)
        if PNG in self._names:
            found[PNG] = np.array([self._image.encoded(outputs, row)], object)
        return found


class TensorRows(Input[Tensors]):
    """A request's tensors, whose answer is the graph's outputs for their rows.

    Args:
        tensors: all inputs of the graph by name, each [rows, ...].
        rows: number of rows, at least 1.
    """

    __slots__ = ("rows", "shapes", "tensors")

    def __init__(self, tensors: Tensors, rows: int) -> None:
        self.tensors = tensors
        self.rows = rows
        self.shapes = tuple([value.shape[1:] for value in tensors.values()])

    def answer(self, outputs: Tensors, row: int) -> Tensors:
        """Return the request's rows, [rows, ...], of each output, with strings as `bytes` in UTF-8."""
        found = {name: value[row : row + self.rows] for name, value in outputs.items()}
        return {name: _as_bytes(value) if value.dtype.kind == "O" else value for name, value in found.items()}


def made_outputs(card: AnyServed) -> tuple[str, ...]:
    """Return the names of the outputs that are made of the graph's: `result` or `png`, BYTES, for an image."""
    if isinstance(card, ServedCard):
        return (RESULT,)
    return (PNG,) if card.answers_image else ()


def output_names(card: AnyServed, *, encoded: bool) -> tuple[str, ...]:
    """Return an image's default outputs: those made of the graph's if it is encoded, else all outputs of the graph."""
    return (encoded and made_outputs(card)) or tuple(output.name for output in card.outputs)


def recipe_of(card: AnyServed) -> Recipe:
    """Return the recipe of a model that takes images."""
    assert card.recipe is not None  # noqa: S101 - no image is made for other models
    return card.recipe


def _as_bytes(texts: Array) -> Array:
    return objects([str(text).encode() for text in texts.ravel()], texts.shape)
