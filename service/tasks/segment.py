"""segment: the classes that are present in an image, each with its mask and its share of the image.

For graphs of instance segmentation the predictions are single objects; see `instances`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Instance, Segment
from service.tasks import instances
from service.tasks.detect import OF_CARD
from service.tasks.grid import MaxTiles, Merge, TileFull, TileOverlap, Tiles
from service.vision.masks import area, class_areas, class_mask, encode
from zoo.recipe import Placement
from zoo.served_card import ServedCard

_OBJECT = 1  # the class id of a salient object; 0 is the background

_WHOSE = f"(models that find instances). {OF_CARD}"
ScoreThreshold = Annotated[
    float, Meta(ge=0, le=1, description=f"Objects with a lower score are left out {_WHOSE} 0.25.")
]
_OVERLAP = f"Of two boxes of one class that overlap more than this, the better stays {_WHOSE} 0.45."
IouThreshold = Annotated[float, Meta(ge=0, le=1, description=_OVERLAP)]
MaxDetections = Annotated[int, Meta(ge=1, le=1000, description=f"At most this many objects, best first {_WHOSE} 100.")]


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/segment`."""

    mask: Annotated[
        Literal["rle", "png", "polygon", "none"], Meta(description="The form of the masks; none leaves them out.")
    ] = "rle"
    score_threshold: ScoreThreshold | None = None
    iou_threshold: IouThreshold | None = None
    max_detections: MaxDetections | None = None
    tiles: Tiles | None = None
    tile_overlap: TileOverlap = 0.2
    tile_full: TileFull = True
    max_tiles: MaxTiles = 128
    merge: Merge = "seam"


def unsupported_reason(options: Options, card: ServedCard) -> str | None:
    """Return why a model cannot do what the options ask for; None if it can."""
    if options.tiles is None or any(output.name == "prototypes" for output in card.outputs):
        return None
    return f"`{card.name}` finds no objects that `tiles` could be merged of: it tells of each pixel what it shows."


def answer(
    outputs: Tensors, index: int, card: ServedCard, placement: Placement, options: Options
) -> list[Segment] | list[Instance]:
    """Segment one image. Returns classes, the largest first, without the background; or objects, the best first.

    The graph's output is, for semantic segmentation, `mask` uint8 [N, H, W], a class id per pixel of the graph's input;
    for a salient object, `alpha` uint8 [N, H, W], its opacity, 0 to 255; for instances see `instances.answer`.
    """
    if "prototypes" in outputs:
        return instances.answer(outputs, index, card, placement, options, options.mask)
    soft = "alpha" in outputs
    pixels = outputs["alpha" if soft else "mask"][index]
    found = []
    for class_id, share in [(_OBJECT, area(pixels, placement))] if soft else class_areas(pixels, placement):
        if share:
            mask = None
            if options.mask != "none":
                opacity = pixels if soft else class_mask(pixels, class_id)
                mask = encode(opacity, placement, options.mask, soft=soft)
            found.append(Segment(class_id, card.labels[class_id], round(share, 6), mask))
    return found
