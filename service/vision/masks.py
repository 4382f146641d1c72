"""Resizes masks from the graph's input to the original image, and encodes them as RLE, PNG or polygons.

Called by the tasks that segment, and by `draw`, which decodes them. A mask is uint8 [H, W]: the opacity of one object,
0 to 255. A pixel belongs to the object if its value is 128 or more.
"""

import base64
from collections.abc import Sequence
from math import ceil, floor
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from service.results import Box, Mask, Png, Polygons, RunLength
from service.vision.geometry import view, whole_pixels
from service.vision.outlines import outlines
from service.vision.sparse_png import encode_sparse
from zoo.recipe import Placement

Form = Literal["rle", "png", "polygon"]
Opacity = npt.NDArray[np.uint8]

_INSIDE = 128
# The fastest and smallest for masks, which are mostly 0 and 255.
_PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
# Parts and holes of fewer pixels of the graph's input are left out of polygons.
_MIN_AREA = 2.0


class Frame(NamedTuple):
    """The position of a part of a mask in the whole mask, whose other pixels are 0. In pixels of the original image.

    Attributes:
        left, top: the part's corner.
        width, height: of the whole image.
    """

    left: int
    top: int
    width: int
    height: int


def class_areas(classes: npt.NDArray[np.uint8], where: Placement) -> list[tuple[int, float]]:
    """Find the classes that are present in an image, without the background, 0, and the share that each covers.

    Args:
        classes: a class id per pixel of the graph's input, uint8 [H, W].
        where: placement of the image in the graph's input.

    Returns:
        Pairs of class id and share, 0 to 1, the largest share first. Parts of the image that were cropped away count as
        not covered.
    """
    counts = np.bincount(_seen(classes, where).ravel(), minlength=1)
    counts[0] = 0
    present = np.flatnonzero(counts)
    order = present[np.argsort(-counts[present], kind="stable")]
    return [(int(i), float(counts[i]) / _pixels(where)) for i in order]


def area(mask: Opacity, where: Placement) -> float:
    """The share of the image, 0 to 1, that a mask covers: uint8 [H, W], in pixels of the graph's input."""
    return float(np.count_nonzero(_seen(mask, where) >= _INSIDE)) / _pixels(where)


def class_mask(classes: npt.NDArray[np.uint8], class_id: int) -> Opacity:
    """The mask of one class: uint8 [H, W], 0 or 254, from class ids uint8 [H, W].

    It is 254 and not 255, so that a pixel interpolated half-way between two classes is 127, in neither of their masks.
    So masks of different classes never overlap.
    """
    return np.where(classes == class_id, np.uint8(254), np.uint8(0))


def encode(mask: Opacity, where: Placement, form: Form, *, soft: bool = False) -> Mask:
    """Resize a mask from the graph's input to the original image and encode it.

    Args:
        mask: uint8 [H, W], in pixels of the graph's input.
        where: placement of the image in the graph's input.
        form: `rle`, `png` or `polygon`; `service.results` describes them.
        soft: whether the mask is an opacity: then a PNG keeps 0 to 255, and `where` may say that it is resized by
            Lanczos' filter.
    """
    whole = to_image_size(mask, where, lanczos=soft and where.lanczos)
    return encode_png(whole) if soft and form == "png" else encode_image_mask(whole, where, form)


def encode_image_mask(mask: Opacity, where: Placement, form: Form, frame: Frame | None = None) -> Mask:
    """Encode a mask of the original image as a binary mask.

    Args:
        mask: uint8 [h, w], in pixels of the original image.
        where: placement of the image in the graph's input. Polygons leave out parts and holes of less than two pixels
            of that input.
        form: `rle`, `png` or `polygon`.
        frame: position of `mask` in the whole mask; None if it is the whole mask.
    """
    if form == "png":
        return encode_png(binary(mask), frame)
    if form == "rle":
        return encode_rle(mask, frame)
    return encode_polygons(mask, _MIN_AREA / (where.scale_x * where.scale_y), frame)


def to_image_size(mask: Opacity, where: Placement, *, lanczos: bool = False) -> Opacity:
    """Resize a mask from the graph's input to the original image.

    Values are interpolated linearly, which smooths the outline of a binary mask. Masks from `class_mask` do not overlap
    afterwards either. If the mask shrinks along both axes, values are averaged instead.

    Args:
        mask: uint8 [H, W], in pixels of the graph's input.
        where: placement of the image in the graph's input.
        lanczos: by Pillow's Lanczos filter instead, as rembg does; it takes some 20 times as long.

    Returns:
        uint8 [where.height, where.width], 0 in the parts of the image that were cropped away.
    """
    height, width = mask.shape
    seen = view(where, width, height)
    left, right = whole_pixels(seen.x.start, seen.x.end, where.width)
    top, bottom = whole_pixels(seen.y.start, seen.y.end, where.height)
    part, size = mask[seen.slices], (right - left, bottom - top)
    if lanczos:
        scaled = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.LANCZOS))
    else:
        shrinks = size[0] < seen.x.length and size[1] < seen.y.length
        kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        scaled = cast("Opacity", cv2.resize(part, size, interpolation=kind))
    return _in_whole_mask(scaled, Frame(left, top, where.width, where.height))


def encode_rle(mask: Opacity, frame: Frame | None = None) -> RunLength:
    """Encode a mask as COCO's compressed run lengths.

    Runs go down the columns; the first is one of zeros. They are computed here and compressed by pycocotools, which
    would compute them byte by byte, holding the GIL, over the whole mask.

    Args:
        mask: uint8 [h, w].
        frame: position of `mask` in the whole mask; None if it is the whole mask.
    """
    rows, columns = mask.shape
    left, top, width, height = frame or Frame(0, 0, columns, rows)
    turned = cv2.transpose(binary(mask))
    if rows < height:  # an empty row ends each run at the end of its column
        turned = cv2.copyMakeBorder(turned, 0, 0, 0, 1, cv2.BORDER_CONSTANT)
    pixels = turned.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first, last = ([0] if pixels[0] else []), ([pixels.size] if pixels[-1] else [])
    column, row = np.divmod(np.concatenate([first, edges, last]).astype(np.int64), turned.shape[1])
    runs = np.diff((left + column) * height + top + row, prepend=0, append=width * height)
    if not runs[-1]:
        runs = runs[:-1]  # the image's last pixel belongs to the object
    packed: Any = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return RunLength((height, width), packed["counts"].decode("ascii"))


def move_rle(mask: RunLength, frame: Frame) -> RunLength:
    """Put the mask of a part of an image to its position, `frame`, in the mask of the whole image."""
    height, width = mask.size
    if (width, height) == (frame.width, frame.height):
        return mask
    return encode_rle(decode(mask, width, height), frame)


def unite_rle(masks: Sequence[RunLength]) -> tuple[RunLength, int]:
    """Unite masks of one size. Returns the mask of the pixels in any of them, and how many these are."""
    united: Any = coco.merge([_packed(mask) for mask in masks])
    return RunLength(masks[0].size, united["counts"].decode("ascii")), int(coco.area(united))


def convert_rle(mask: RunLength, form: Form, box: Box, frame: Frame) -> Mask:
    """Encode the mask of an object in another form, or as run lengths of the whole image.

    Only the pixels in the box are looked at: an image may have many times as many.

    Args:
        mask: of a part of the image.
        form: as for `encode_image_mask`.
        box: around the object, xyxy in pixels of the image.
        frame: position of `mask` in the mask of the whole image.
    """
    if form == "rle":
        return move_rle(mask, frame)
    height, width = mask.size
    left, right = max(0, floor(box[0]) - frame.left), min(width, ceil(box[2]) - frame.left)
    top, bottom = max(0, floor(box[1]) - frame.top), min(height, ceil(box[3]) - frame.top)
    pixels: Any = coco.decode(_packed(mask))
    seen = np.multiply(pixels[top:bottom, left:right], np.uint8(255), order="C")
    frame = Frame(frame.left + left, frame.top + top, frame.width, frame.height)
    return encode_png(seen, frame) if form == "png" else encode_polygons(seen, _MIN_AREA, frame)


def encode_png(mask: Opacity, frame: Frame | None = None) -> Png:
    """Encode a mask, uint8 [h, w], as a greyscale PNG in base64. `frame` is as for `encode_rle`."""
    if frame is None or mask.shape == (frame.height, frame.width):
        data = cv2.imencode(".png", mask, _PNG)[1].tobytes()
    else:  # most of a large image would be black: that took .1 s for each object
        data = encode_sparse(mask, *frame)
    return Png(base64.b64encode(data).decode("ascii"))


def encode_polygons(mask: Opacity, min_area: float = 0.0, frame: Frame | None = None) -> Polygons:
    """Encode a mask as polygons, the largest first.

    They follow the outer edges of the pixels, so an object of 2 x 2 pixels has an area of 4. `outlines` describes how
    exact they are, and how holes are encoded.

    Args:
        mask: uint8 [h, w].
        min_area: parts and holes of fewer pixels are left out; the largest part always stays.
        frame: as for `encode_rle`.
    """
    corner = (frame.left, frame.top) if frame else (0, 0)
    return Polygons([(line + corner).ravel().tolist() for line in outlines(binary(mask), min_area)])


def decode(mask: Mask, width: int, height: int) -> Opacity:
    """Decode a mask of any form to uint8 [height, width].

    Args:
        mask: an encoded mask.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    if isinstance(mask, Png):
        data = np.frombuffer(base64.b64decode(mask.png), np.uint8)
        return cast("Opacity", cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    if isinstance(mask, RunLength):
        runs: Any = _packed(mask)
    elif mask.polygons:
        runs = coco.merge(coco.frPyObjects(mask.polygons, height, width))
    else:
        return np.zeros((height, width), np.uint8)
    return cast("Opacity", coco.decode(runs) * np.uint8(255))


def _packed(mask: RunLength) -> dict[str, Any]:
    """Return run lengths as pycocotools takes them."""
    return {"size": list(mask.size), "counts": mask.counts.encode("ascii")}


def _seen(mask: npt.NDArray[np.uint8], where: Placement) -> npt.NDArray[np.uint8]:
    height, width = mask.shape
    return mask[view(where, width, height).slices]


def _in_whole_mask(mask: Opacity, frame: Frame) -> Opacity:
    """Copy a part of a mask to its position in an empty mask of the whole image."""
    rows, columns = mask.shape
    if (rows, columns) == (frame.height, frame.width):
        return mask
    whole = np.zeros((frame.height, frame.width), np.uint8)
    whole[frame.top : frame.top + rows, frame.left : frame.left + columns] = mask
    return whole


def _pixels(where: Placement) -> float:
    """The area of the whole image, in pixels of the graph's input."""
    return where.scale_x * where.width * where.scale_y * where.height


def binary(mask: Opacity) -> Opacity:
    """A mask of 255 where a pixel belongs to the object, and 0 elsewhere."""
    return cast("Opacity", cv2.threshold(mask, _INSIDE - 1, 255, cv2.THRESH_BINARY)[1])
