"""An image in tiles: it is decoded once, in its full size, and each tile is an ordinary job of the model.

The predictor makes it of an image whose options ask for tiles.
"""

from functools import partial

from msgspec import Struct

from service.engine.calls import Calls
from service.models.composite import CompositeImage, Steps
from service.models.inputs import ImageCut
from service.models.model import ImageModel
from service.results import ImageSize, Result
from service.settings import Settings
from service.tasks import operation_of
from service.tasks.grid import CutBox, Tiling, cuts_of
from service.tasks.tiles import merge_tiles, options_of_a_tile


class TiledImage(CompositeImage):
    """An encoded image that is looked at in tiles.

    Args:
        data: the encoded image.
        model: that answers.
        options: of the request's task.
        tiling: among them.
        settings: how images are resized, and how large they may be.
        calls: decode and merge.
    """

    __slots__ = ("_model", "_options", "_tiling")

    def __init__(
        self, data: bytes, model: ImageModel, options: Struct, tiling: Tiling, settings: Settings, calls: Calls
    ) -> None:
        super().__init__(data, settings, calls)
        self._model = model
        self._options = options
        self._tiling = tiling

    async def compose(self, steps: Steps) -> Result:
        """Look at every tile, and merge what is found.

        Raises:
            RequestError: `bad_option`: too many tiles; the image is not one, damaged or too large; a tile failed.
        """
        card, size = self._model.card, await self._size(steps)
        cuts = cuts_of(*size, card.recipe, self._tiling)
        results = await self._look(steps, cuts, size)
        if len(cuts) == 1:
            return results[0]
        found = [result.predictions for result in results]
        merging = partial(merge_tiles, cuts, found, size, card, self._options, self._tiling)
        predictions = await steps.call("postprocess", merging)
        return Result(card.name, card.version, operation_of(self._options), ImageSize(*size), predictions)

    async def _look(self, steps: Steps, cuts: list[CutBox], size: tuple[int, int]) -> list[Result]:
        """Ask about every tile. The pixels are freed afterwards."""
        steps.check(self._model, len(cuts))
        card, options = self._model.card, options_of_a_tile(self._options) if len(cuts) > 1 else self._options
        async with self._decoded(steps, size) as image:
            tiles = [ImageCut(image, cut, card, options, self._settings) for cut in cuts]
            del image
            answers = await steps.ask(self._model, tiles)
        results = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            results.append(answer)
        return results
