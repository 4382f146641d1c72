"""An image in tiles: it is decoded once, in its full size, and each tile is an ordinary job of the model.

The predictor makes it of an image whose options ask for tiles. A pipeline looks in tiles by the same functions.
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
from service.tasks.grid import CutBox, cuts_of, tiling_of
from service.tasks.tiles import merge_tiles, options_of_a_tile
from service.vision.decoded import DecodedImage


class TiledImage(CompositeImage):
    """An encoded image that is looked at in tiles.

    Args:
        data: the encoded image.
        model: that answers.
        options: of the request's task, which ask for tiles.
        settings: how images are resized, and how large they may be.
        calls: decode and merge.
    """

    __slots__ = ("_model", "_options")

    def __init__(self, data: bytes, model: ImageModel, options: Struct, settings: Settings, calls: Calls) -> None:
        super().__init__(data, settings, calls)
        self._model = model
        self._options = options

    async def compose(self, steps: Steps) -> Result:
        """Look at every tile, and merge what is found.

        Raises:
            RequestError: `bad_option`: too many tiles; the image is not one, damaged or too large; a tile failed.
        """
        size = await self._size(steps)
        cuts = cuts_for(steps, size, self._model, self._options)
        async with self._decoded(steps, size) as image:
            results = await look(steps, image, cuts, self._model, self._options, self._settings)
        return await merged(steps, cuts, results, size, self._model, self._options)


def cuts_for(steps: Steps, size: tuple[int, int], model: ImageModel, options: Struct) -> list[CutBox]:
    """Return the tiles of an image, width and height, that the options ask for; without tiles the whole image.

    Raises:
        RequestError: `bad_option`: they are too many; `queue_full`.
    """
    tiling = tiling_of(options)
    if tiling is None:
        return [(0, 0, *size)]
    cuts = cuts_of(*size, model.card.recipe, tiling)
    steps.check(model, len(cuts))
    return cuts


async def look(
    steps: Steps, image: DecodedImage, cuts: list[CutBox], model: ImageModel, options: Struct, settings: Settings
) -> list[Result]:
    """Ask about every tile; raises what one failed with."""
    one = options_of_a_tile(options) if len(cuts) > 1 else options
    tiles = [ImageCut(image, cut, model.card, one, settings) for cut in cuts]
    results = []
    for answer in await steps.ask(model, tiles):
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results


async def merged(
    steps: Steps, cuts: list[CutBox], results: list[Result], size: tuple[int, int], model: ImageModel, options: Struct
) -> Result:
    """Merge what was found in the tiles of an image of a size, width and height."""
    tiling, card = tiling_of(options), model.card
    if tiling is None or len(cuts) == 1:
        return results[0]
    found = [result.predictions for result in results]
    predictions = await steps.call("postprocess", partial(merge_tiles, cuts, found, size, card, options, tiling))
    return Result(card.name, card.version, operation_of(options), ImageSize(*size), predictions)
