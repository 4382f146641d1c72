"""An image in tiles: it is decoded once, in its full size, and each tile is an ordinary job of the model.

The predictor makes it of an image whose options ask for tiles.
"""

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
from msgspec import Struct

from service.engine.binding import Tensors
from service.engine.calls import Calls
from service.models.composite import Composite, Steps
from service.models.inputs import RESULT, ImageCut
from service.models.model import ImageModel
from service.results import ImageSize, Result
from service.settings import Settings
from service.tasks import operation_of
from service.tasks.grid import CutBox, Tiling, cuts_of
from service.tasks.tiles import merge_tiles, options_of_a_tile
from service.vision.decoded import decode_whole, size_of

_encode = msgspec.json.Encoder().encode


class TiledImage(Composite[Result]):
    """An encoded image that is looked at in tiles.

    Args:
        data: the encoded image.
        model: that answers.
        options: of the request's task.
        tiling: among them.
        settings: how images are resized, and how large they may be.
        calls: decode and merge.
    """

    __slots__ = ("_data", "_max_pixels", "_model", "_options", "_settings", "_tiling")

    def __init__(
        self, data: bytes, model: ImageModel, options: Struct, tiling: Tiling, settings: Settings, calls: Calls
    ) -> None:
        super().__init__(calls)
        self._data = data
        self._model = model
        self._options = options
        self._tiling = tiling
        self._settings = settings
        self._max_pixels = int(settings.max_megapixels * 1e6)

    async def compose(self, steps: Steps) -> Result:
        """Look at every tile, and merge what is found.

        Raises:
            RequestError: `bad_option`: too many tiles; the image is not one, damaged or too large; a tile failed.
        """
        card, size = self._model.card, await steps.call("decode", partial(size_of, self._data, self._max_pixels))
        cuts = cuts_of(*size, card.recipe, self._tiling)
        results = await self._look(steps, cuts, size)
        if len(cuts) == 1:
            return results[0]
        found = [result.predictions for result in results]
        merging = partial(merge_tiles, cuts, found, size, card, self._options, self._tiling)
        predictions = await steps.call("postprocess", merging)
        return Result(card.name, card.version, operation_of(self._options), ImageSize(*size), predictions)

    def outputs(self, names: Sequence[str]) -> "TiledOutputs":  # noqa: ARG002 - it has but one
        """Make the input whose answer is the output `result` for this image."""
        return TiledOutputs(self, self._calls)

    async def _look(self, steps: Steps, cuts: list[CutBox], size: tuple[int, int]) -> list[Result]:
        """Ask about every tile. The pixels are freed afterwards."""
        steps.check(self._model, len(cuts))
        card, options = self._model.card, options_of_a_tile(self._options) if len(cuts) > 1 else self._options
        async with steps.decoded(size, partial(decode_whole, self._data, self._max_pixels)) as image:
            self._data = b""
            tiles = [ImageCut(image, cut, card, options, self._settings) for cut in cuts]
            del image
            answers = await steps.ask(self._model, tiles)
        results = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            results.append(answer)
        return results


class TiledOutputs(Composite[Tensors]):
    """The same as the output `result` of the Open Inference Protocol: BYTES, the JSON of the image's result."""

    __slots__ = ("_image",)

    def __init__(self, image: TiledImage, calls: Calls) -> None:
        super().__init__(calls)
        self._image = image

    async def compose(self, steps: Steps) -> Tensors:
        """Look at every tile, merge and encode."""
        return {RESULT: np.array([_encode(await self._image.compose(steps))], object)}
