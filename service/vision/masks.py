"""From masks of the graph's input to masks of the original image, in the forms that HTTP answers with.

Called by the segmenting tasks, and by `draw`, which reads the forms back. A mask is uint8 [H, W], 0 to 255: the opacity
of one object. A pixel belongs to the object from 128 on.
"""

import base64
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from service.results import Mask, Png, Polygons, RunLength
from service.vision.geometry import view, whole_pixels
from service.vision.outlines import outlines
from zoo.recipe import Placement

Form = Literal["rle", "png", "polygon"]
Opacity = npt.NDArray[np.uint8]

_INSIDE = 128
# Quickest and smallest for masks, which are mostly 0 and 255.
_PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
# Parts and holes of less than so many pixels of the graph's input are specks.
_SPECK = 2.0


class Frame(NamedTuple):
    """Where a cut-out part of a mask lies: its corner, and the size of the whole image, in pixels of the image.

    Outside of the part, nothing belongs to the object.
    """

    left: int
    top: int
    width: int
    height: int


def class_areas(classes: npt.NDArray[np.uint8], where: Placement, background: int = 0) -> list[tuple[int, float]]:
    """Say which classes are present and what share of the image each covers, the largest first.

    Args:
        classes: class ids, uint8 [H, W], at the size of the graph's input.
        where: the image in it.
        background: the class id that is left out.

    Returns:
        Class ids and shares, 0 to 1. What a crop cut off counts as not covered.
    """
    counts = np.bincount(_seen(classes, where).ravel(), minlength=background + 1)
    counts[background] = 0
    present = np.flatnonzero(counts)
    order = present[np.argsort(-counts[present], kind="stable")]
    return [(int(i), float(counts[i]) / _pixels(where)) for i in order]


def area(mask: Opacity, where: Placement) -> float:
    """The share of the image, 0 to 1, that a mask [H, W] at the size of the graph's input covers."""
    return float(np.count_nonzero(_seen(mask, where) >= _INSIDE)) / _pixels(where)


def class_mask(classes: npt.NDArray[np.uint8], class_id: int) -> Opacity:
    """The mask of one class of class ids uint8 [H, W].

    It is 0 or 254: half-way between two classes then lies in neither, and their masks never overlap.
    """
    return np.where(classes == class_id, np.uint8(254), np.uint8(0))


def encode(mask: Opacity, where: Placement, form: Form, *, soft: bool = False) -> Mask:
    """Bring a mask to the original image's size and write it down.

    Args:
        mask: uint8 [H, W], at the size of the graph's input.
        where: the image in it.
        form: `rle`, `png` or `polygon` (see `service.results`).
        soft: a PNG shows the opacity itself, not 0 or 255.
    """
    whole = to_image_size(mask, where)
    return encode_png(whole) if soft and form == "png" else write_down(whole, where, form)


def write_down(mask: Opacity, where: Placement, form: Form, frame: Frame | None = None) -> Mask:
    """Write down a mask of the original image, or the part of one that lies in `frame`, as 0 or 255.

    Args:
        mask: uint8 [h, w], in pixels of the image.
        where: the image in the graph's input; polygons leave out what is a speck there.
        form: `rle`, `png` or `polygon`.
        frame: of the part; None: the mask is that of the whole image.
    """
    if form == "png":
        return encode_png(binary(mask), frame)
    if form == "rle":
        return encode_rle(mask, frame)
    return encode_polygons(mask, _SPECK / (where.scale_x * where.scale_y), frame)


def to_image_size(mask: Opacity, where: Placement) -> Opacity:
    """Bring a mask [H, W] of the graph's input to the original image's size, uint8 [where.height, where.width].

    Linear between the centres of the input's pixels: outlines of a binary mask become smooth, and where classes exclude
    one another their masks still do. 0 where a crop cut the image off.
    """
    height, width = mask.shape
    seen = view(where, width, height)
    left, right = whole_pixels(seen.x.start, seen.x.end, where.width)
    top, bottom = whole_pixels(seen.y.start, seen.y.end, where.height)
    shrinks = right - left < seen.x.length and bottom - top < seen.y.length
    scaled = cast(
        "Opacity",
        cv2.resize(
            mask[seen.slices],
            (right - left, bottom - top),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        ),
    )
    return _in_whole_mask(scaled, Frame(left, top, where.width, where.height))


def encode_rle(mask: Opacity, frame: Frame | None = None) -> RunLength:
    """Write a mask [h, w], or the part of one that lies in `frame`, down as COCO's compressed run lengths.

    The runs go down the columns and begin with those outside. They are compressed by pycocotools, but counted here: it
    would do that byte by byte, holding the GIL, and for the whole image where only a part is not empty.
    """
    rows, columns = mask.shape
    left, top, width, height = frame or Frame(0, 0, columns, rows)
    turned = cv2.transpose(binary(mask))
    if rows < height:  # a row outside, so that no run goes on into the next column
        turned = cv2.copyMakeBorder(turned, 0, 0, 0, 1, cv2.BORDER_CONSTANT)
    pixels = turned.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first, last = ([0] if pixels[0] else []), ([pixels.size] if pixels[-1] else [])
    column, row = np.divmod(np.concatenate([first, edges, last]).astype(np.int64), turned.shape[1])
    runs = np.diff((left + column) * height + top + row, prepend=0, append=width * height)
    if not runs[-1]:
        runs = runs[:-1]  # the image's last pixel is inside
    packed: Any = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return RunLength((height, width), packed["counts"].decode("ascii"))


def encode_png(mask: Opacity, frame: Frame | None = None) -> Png:
    """Write a mask [h, w], or the part of one that lies in `frame`, down as a greyscale PNG, base64."""
    _, data = cv2.imencode(".png", mask if frame is None else _in_whole_mask(mask, frame), _PNG)
    return Png(base64.b64encode(data.tobytes()).decode("ascii"))


def encode_polygons(mask: Opacity, speck: float = 0.0, frame: Frame | None = None) -> Polygons:
    """Write a mask [h, w], or the part of one that lies in `frame`, down as its outlines, the largest first.

    They follow the outer edges of the pixels, so that an object of 2 x 2 pixels has an area of 4; see `outlines`, which
    says how closely, and how holes are left out.

    Args:
        mask: the mask.
        speck: parts and holes of fewer pixels are left out; the largest part always stays.
        frame: of the part.
    """
    corner = (frame.left, frame.top) if frame else (0, 0)
    return Polygons([(line + corner).ravel().tolist() for line in outlines(binary(mask), speck)])


def decode(mask: Mask, width: int, height: int) -> Opacity:
    """Read a mask of an image of `width` x `height` pixels back from any form, to uint8 [height, width]."""
    if isinstance(mask, Png):
        data = np.frombuffer(base64.b64decode(mask.png), np.uint8)
        return cast("Opacity", cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    if isinstance(mask, RunLength):
        runs: Any = {"size": list(mask.size), "counts": mask.counts.encode("ascii")}
    elif mask.polygons:
        runs = coco.merge(coco.frPyObjects(mask.polygons, height, width))
    else:
        return np.zeros((height, width), np.uint8)
    return cast("Opacity", coco.decode(runs) * np.uint8(255))


def _seen(mask: npt.NDArray[np.uint8], where: Placement) -> npt.NDArray[np.uint8]:
    height, width = mask.shape
    return mask[view(where, width, height).slices]


def _in_whole_mask(mask: Opacity, frame: Frame) -> Opacity:
    """Lay the part of a mask that lies in `frame` into an empty mask of the whole image."""
    rows, columns = mask.shape
    if (rows, columns) == (frame.height, frame.width):
        return mask
    whole = np.zeros((frame.height, frame.width), np.uint8)
    whole[frame.top : frame.top + rows, frame.left : frame.left + columns] = mask
    return whole


def _pixels(where: Placement) -> float:
    """Pixels of the whole image at the scale of the graph's input."""
    return where.scale_x * where.width * where.scale_y * where.height


def binary(mask: Opacity) -> Opacity:
    """255 where a pixel belongs to the object, else 0."""
    return cast("Opacity", cv2.threshold(mask, _INSIDE - 1, 255, cv2.THRESH_BINARY)[1])
