"""Small objects in large images: the options of tiles, and the tiles of an image.

`models.tiles` makes a job of each tile; `merging` merges what was found in them.
"""

from math import ceil
from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.errors import Reason, RequestError
from zoo.card import Recipe

CutBox = tuple[int, int, int, int]
"""A tile: xyxy in whole pixels of the upright image."""

Tiles = Annotated[
    str,
    Meta(
        pattern=r"^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})$(?!\n)",
        description="Look for small objects in tiles of the image: `auto` (of the size of the model's input), or "
        "WIDTHxHEIGHT in pixels of the image.",
        extra={"expected": "`auto`, or WIDTHxHEIGHT in pixels of the image, such as `640x640`"},
    ),
]
TileOverlap = Annotated[
    float, Meta(ge=0, le=0.9, description="Least share of a tile that its neighbour covers as well.")
]
TileFull = Annotated[bool, Meta(description="Look for large objects in the whole image too.")]
MaxTiles = Annotated[int, Meta(ge=1, le=1000, description="Images of more tiles, the whole one included, get 422.")]
Merge = Annotated[
    Literal["seam", "nms", "none"],
    Meta(
        description="How objects of several tiles become one. seam: boxes that touch a tile's inner edge are pieces, "
        "which are united, or left out within an object that was seen whole; all others are suppressed as "
        "`iou_threshold` says. nms: all are suppressed. none: all stay."
    ),
]


class Tiling(Struct, frozen=True):
    """The options of tiles, as a task's `Options` have them."""

    tiles: Tiles | None = None
    tile_overlap: TileOverlap = 0.2
    tile_full: TileFull = True
    max_tiles: MaxTiles = 128
    merge: Merge = "seam"


def tiling_of(options: Struct) -> Tiling | None:
    """Return the options of tiles among those of a task; None if no tiles are asked for."""
    tiles = getattr(options, "tiles", None)
    return tiles and Tiling(**{name: getattr(options, name) for name in Tiling.__struct_fields__})


def cuts_of(width: int, height: int, recipe: Recipe, tiling: Tiling) -> list[CutBox]:
    """Cut an image into tiles, by rows. An image that is no larger than a tile is one.

    Args:
        width: of the upright image, in pixels.
        height: likewise.
        recipe: of the model.
        tiling: of the request.

    Returns:
        The tiles and then, if it is asked for, the whole image.

    Raises:
        RequestError: `bad_option`: there are more than `max_tiles`.
    """
    size = (recipe.width, recipe.height)
    if tiling.tiles != "auto":
        across, _, down = str(tiling.tiles).partition("x")
        size = (int(across), int(down))
    axes = [_Axis(side, tile, tiling.tile_overlap) for side, tile in zip((width, height), size, strict=True)]
    count = axes[0].count * axes[1].count
    whole = tiling.tile_full and count > 1
    if count + whole > tiling.max_tiles:
        raise RequestError(
            Reason.BAD_OPTION,
            f"The image of {width} x {height} pixels has {count} tiles of {size[0]} x {size[1]}"
            f"{', and is looked at as a whole' if whole else ''}; `max_tiles` is {tiling.max_tiles}. "
            "Allow more, or ask for larger `tiles` or less `tile_overlap`.",
        )
    tiles = [
        (left, top, left + axes[0].length, top + axes[1].length)
        for top in axes[1].places()
        for left in axes[0].places()
    ]
    return [*tiles, (0, 0, width, height)] if whole else tiles


class _Axis:
    """Tiles along an axis of `side` pixels. The last one is shifted inwards, so that it is as long as the others.

    Attributes:
        length: of a tile, in pixels.
        count: how many there are.
    """

    def __init__(self, side: int, tile: int, overlap: float) -> None:
        self.length = min(tile, side)
        self._last = side - self.length  # where the last one begins
        self._step = max(1, int(tile * (1 - overlap)))
        self.count = ceil(self._last / self._step) + 1

    def places(self) -> list[int]:
        """Where tiles begin."""
        return [*range(0, self._last, self._step), self._last]
