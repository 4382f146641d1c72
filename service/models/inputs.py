"""An image as a job's input: encoded, or as pixels.

The predictor and the dataplane submit them; the self-test and `evaluate` run them without a queue.
"""

from abc import abstractmethod

import numpy as np
from msgspec import Struct

from service.engine.binding import Tensors
from service.engine.image_buffer import Image
from service.engine.job import Input
from service.models.model import ImageModel
from service.results import ImageSize, Result
from service.settings import Settings
from service.tasks import TASKS
from service.vision.resize import prepare
from zoo.recipe import Placement
from zoo.served_card import ServedCard


class ImageInput(Input[Result]):
    """An image whose answer is the typed result of its model's task."""

    __slots__ = ("_card", "_options", "_placement")

    def __init__(self, card: ServedCard, options: Struct) -> None:
        self._card = card
        self._options = options
        self._placement: Placement | None = None  # where the image lies in the graph's input

    @abstractmethod
    def prepare(self, out: Image) -> None:
        """Write the graph's input into `out`, uint8 [H, W, 3]. Once, before `answer`.

        Raises:
            RequestError: `undecodable`, `not_an_image` or `too_large`.
        """

    def answer(self, outputs: Tensors, row: int) -> Result:
        """Make the result of the image from row `row` of a batch's outputs."""
        card, placement = self._card, self._placement
        assert placement is not None  # noqa: S101 - `prepare` came before
        predictions = TASKS[card.task].answer(outputs, row, card, placement, self._options)
        return Result(card.name, card.version, card.task, ImageSize(placement.width, placement.height), predictions)


class EncodedImage(ImageInput):
    """An image's file, of any format that `vision.decode` reads.

    Args:
        data: the file.
        card: of the model.
        options: of the model's task.
        settings: how images are resized, and how large they may be.
    """

    __slots__ = ("_data", "_settings")

    def __init__(self, data: bytes, card: ServedCard, options: Struct, settings: Settings) -> None:
        super().__init__(card, options)
        self._data = data
        self._settings = settings

    def prepare(self, out: Image) -> None:
        """Decode and resize."""
        settings = self._settings
        exact, max_pixels = settings.pixels == "exact", int(settings.max_megapixels * 1e6)
        _, self._placement = prepare(self._data, self._card.recipe, exact=exact, max_pixels=max_pixels, out=out)
        self._data = b""  # the file is not kept while the image waits for its run


class PixelArray(ImageInput):
    """An image that is the graph's input already, uint8 [H, W, 3]; it is taken for the whole image."""

    __slots__ = ("_pixels",)

    def __init__(self, pixels: Image, card: ServedCard, options: Struct) -> None:
        super().__init__(card, options)
        self._pixels = pixels
        height, width, _ = pixels.shape
        self._placement = Placement(width, height, 1.0, 1.0, 0.0, 0.0)

    def prepare(self, out: Image) -> None:
        """Copy the pixels."""
        out[:] = self._pixels


def answer_alone(model: ImageModel, image: ImageInput) -> Result:
    """Answer one image on the calling thread, without the queue; raises `RequestError` where it cannot be prepared."""
    recipe = model.card.recipe
    pixels = np.empty((1, recipe.height, recipe.width, 3), np.uint8)
    image.prepare(pixels[0])
    return image.answer(model.session.run({"images": pixels}), 0)
