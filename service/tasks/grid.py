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
    columns, rows = (_places(side, tile, tiling.tile_overlap) for side, tile in zip((width, height), size, strict=True))
    count = len(columns) * len(rows)
    whole = tiling.tile_full and count > 1
    if count + whole > tiling.max_tiles:
        raise RequestError(
            Reason.BAD_OPTION,
            f"The image of {width} x {height} pixels has {count} tiles of {size[0]} x {size[1]}"
            f"{', and is looked at as a whole' if whole else ''}; `max_tiles` is {tiling.max_tiles}. "
            "Allow more, or ask for larger `tiles` or less `tile_overlap`.",
        )
    right, bottom = (min(tile, side) for tile, side in zip(size, (width, height), strict=True))
    tiles = [(left, top, left + right, top + bottom) for top in rows for left in columns]
    return [*tiles, (0, 0, width, height)] if whole else tiles


def _places(side: int, tile: int, overlap: float) -> range | list[int]:
    """Where tiles begin along an axis of `side` pixels. The last one is shifted inwards, so that it is as long."""
    if side <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    count = ceil((side - tile) / step) + 1
    return [*range(0, (count - 1) * step, step), side - tile]
