"""From a picture's bytes to the graph's input, in the two ways that `ZOOSERVE_PIXELS` chooses from. The predictor's.

`exact` is the card's recipe to the bit: `zoo.recipe.apply_exact`, Pillow. `fast` convolves with the same kernels in the
same order, with SIMD (cykooz-resizer): one value in some hundreds differs from the exact ones, by one grey level.
`loadtests/decode_recipes.py` measures what that, and what quicker ways, do to the answers.
"""

import threading
from typing import Any

import numpy as np
from PIL import Image

from service.vision.decode import MAX_PIXELS, Picture, Pixels, to_rgb
from service.vision.geometry import Span, view
from zoo.card import Recipe
from zoo.recipe import Placement, apply_exact, placement

try:
    import cykooz_resizer as simd
except ImportError:  # there is no wheel for this platform: `fast` resamples with Pillow, too
    simd = None

if simd is not None:
    _RGB = simd.PixelType.U8x3
    # Pillow's kernels, and how far they reach on either side, in pixels of the coarser of the two pictures.
    _KERNELS = {
        "bilinear": (simd.ResizeAlg.convolution(simd.FilterType.bilinear), 1.0),
        "bicubic": (simd.ResizeAlg.convolution(simd.FilterType.catmull_rom), 2.0),
    }
# Source pixels that are copied for resampling at a time, in bytes: little memory, and they stay in the cache.
_BAND = 2 << 20
_thread = threading.local()


def prepare(
    data: bytes, recipe: Recipe, *, exact: bool, max_pixels: int = MAX_PIXELS, out: Pixels | None = None
) -> tuple[Pixels, Placement]:
    """Decode a picture and resize it as a recipe says.

    Args:
        data: the picture's file, of any format that `decode` reads.
        recipe: of the model.
        exact: Pillow's own resampling, at about twice the time.
        max_pixels: larger pictures are refused.
        out: uint8 [recipe.height, recipe.width, 3] to write into, such as a row of a batch.

    Returns:
        The graph's input, uint8 [recipe.height, recipe.width, 3] RGB, and where the upright picture lies in it.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`.
    """
    picture = Picture(data, max_pixels)
    where = placement(recipe, picture.width, picture.height)
    if out is None:
        out = np.empty((recipe.height, recipe.width, 3), np.uint8)
    if exact or simd is None:
        out[:] = apply_exact(recipe, picture.image())
    else:
        _fill(out, picture, recipe, where)
    return out, where


def _fill(out: Pixels, picture: Picture, recipe: Recipe, where: Placement) -> None:
    seen = view(where, recipe.width, recipe.height)
    turn = picture.turn
    # Resampled as it is stored and turned afterwards, when it is small.
    x = seen.x.mirrored(picture.width) if turn.flip_x else seen.x
    y = seen.y.mirrored(picture.height) if turn.flip_y else seen.y
    if turn.transpose:
        x, y = y, x
    # Pillow 13 convolves the upright picture along x first, unless it shrinks far more along y.
    vertical_first = picture.height - seen.y.length > max(0, 2 * (picture.width - seen.x.length))
    order = vertical_first != turn.transpose
    resampled = resample(picture.stored(), x, y, recipe.interpolation, vertical_first=order)
    if resampled.size < out.size:
        out[:] = np.tile(np.array(recipe.pad, np.uint8), (recipe.width, 1))  # a whole row at a time: quicker
    out[seen.slices] = turn.array(resampled)


def resample(
    stored: Pixels | Image.Image, x: Span, y: Span, interpolation: str, *, vertical_first: bool = False
) -> Pixels:
    """Resample a part of a picture with Pillow's antialiased kernels, to uint8 [y.length, x.length, 3] RGB.

    Args:
        stored: uint8 [h, w, 3] RGB, or a Pillow picture of any mode.
        x: the columns of `stored`, and what they become.
        y: the rows.
        interpolation: `bilinear` or `bicubic`.
        vertical_first: convolve along y before x. The order matters, because the values are rounded in between.
    """
    kernel, support = _KERNELS[interpolation]
    width, height = stored.size if isinstance(stored, Image.Image) else (stored.shape[1], stored.shape[0])
    left, right = x.reach(support, width)
    x = Span(x.start - left, x.end - left, x.length)
    resampled = np.empty((y.length, x.length, 3), np.uint8)
    step = max(1, int(_BAND / (3 * (right - left)) * y.length / (y.end - y.start)))
    for row in range(0, y.length, step):
        band = y.part(row, min(row + step, y.length))
        top, bottom = band.reach(support, height)
        band = Span(band.start - top, band.end - top, band.length)
        source = simd.ImageData(right - left, bottom - top, _RGB, _copy(stored, left, top, right, bottom))
        all_x, all_y = Span(0, right - left, right - left), Span(0, bottom - top, bottom - top)
        if vertical_first:
            source = _convolve(_convolve(source, all_x, band, kernel), x, Span(0, band.length, band.length), kernel)
        else:
            source = _convolve(_convolve(source, x, all_y, kernel), Span(0, x.length, x.length), band, kernel)
        resampled[row : row + band.length] = np.frombuffer(source.get_buffer(), np.uint8).reshape(-1, x.length, 3)
    return resampled


def _copy(stored: Pixels | Image.Image, left: int, top: int, right: int, bottom: int) -> bytes:
    if isinstance(stored, Image.Image):
        return to_rgb(stored.crop((left, top, right, bottom))).tobytes()
    return stored[top:bottom, left:right].tobytes()


def _convolve(source: Any, x: Span, y: Span, kernel: Any) -> Any:
    """Resample a part of an `ImageData` to another. The GIL is released."""
    target = simd.ImageData(x.length, y.length, _RGB)
    box = simd.CropBox(x.start, y.start, min(x.end, source.width) - x.start, min(y.end, source.height) - y.start)
    if not hasattr(_thread, "resizer"):
        _thread.resizer = simd.Resizer()  # it has a lock: one per thread, or they would wait for one another
    _thread.resizer.resize(source, target, simd.ResizeOptions(kernel, use_alpha=False, crop_box=box))
    return target
