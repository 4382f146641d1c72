"""Turns an image file into the graph's input. Called by the predictor. `ZOOSERVE_PIXELS` chooses one of two methods.

`exact` follows the card's recipe bit for bit (`zoo.recipe.apply_exact`). For antialiased recipes, `fast` takes half the
time of Pillow; its pixels differ by rounding only. `loadtests/results/decode_recipes.md` shows how `fast`, and faster
methods, change the answers. Other recipes are resampled by the same functions in both modes.
"""

import threading
from typing import Any

import numpy as np
from PIL import Image

from service.vision.decode import EncodedImage
from service.vision.decoded import DecodedImage
from service.vision.formats import MAX_PIXELS
from service.vision.geometry import Span, view
from service.vision.pixels import Pixels, to_rgb
from zoo.card import Recipe
from zoo.recipe import Placement, apply_exact, on_canvas, placement, scaled_size
from zoo.recipe import resample as resample_plain

try:
    import cykooz_resizer as simd
except ImportError:  # not installed: it has no wheel for this platform
    simd = None

# Source pixels per resampled pixel from which on the interpolation of chroma hardly changes the answers.
_COARSE = 8.0
_KERNELS = {"bilinear": ("bilinear", 1.0), "bicubic": ("catmull_rom", 2.0), "lanczos": ("lanczos3", 3.0)}
"""By interpolation: the kernel's name, and half of its width."""
# Bytes of source pixels that are copied at a time. A small band needs little memory and fits into the CPU's cache.
_BAND = 2 << 20
_thread = threading.local()


def prepare(
    data: bytes, recipe: Recipe, *, exact: bool, max_pixels: int = MAX_PIXELS, out: Pixels | None = None
) -> tuple[Pixels, Placement]:
    """Decode an image and resize it as the model's recipe says.

    Args:
        data: an image file of any format that `decode` reads.
        recipe: of the model.
        exact: resample antialiased recipes with Pillow, which takes about twice the time. Where cykooz-resizer is not
            installed, Pillow is always used.
        max_pixels: larger images are refused.
        out: uint8 [recipe.height, recipe.width, 3] to write into, such as a row of a batch.

    Returns:
        The graph's input, uint8 [recipe.height, recipe.width, 3] RGB, and the placement of the upright image in it,
        which also says how a mask comes back: in exact mode, by Lanczos' filter where the recipe has it.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`, as for `EncodedImage`.
    """
    return fit(EncodedImage(data, max_pixels), recipe, exact=exact, out=out)


def fit(
    encoded: EncodedImage | DecodedImage, recipe: Recipe, *, exact: bool, out: Pixels | None = None
) -> tuple[Pixels, Placement]:
    """Resize an image whose header was read, or pixels that were decoded; otherwise as `prepare`."""
    where = placement(recipe, encoded.width, encoded.height)
    if out is None:
        out = np.empty((recipe.height, recipe.width, 3), np.uint8)
    if exact or (simd is None and recipe.resampling == "pillow"):
        out[:] = apply_exact(recipe, encoded.image())
        where = where._replace(lanczos=exact and recipe.interpolation == "lanczos")
    elif recipe.resampling == "pillow":
        _fill(out, encoded, recipe, where)
    else:
        _fill_plain(out, encoded, recipe, where)
    return out, where


def _fill_plain(out: Pixels, encoded: EncodedImage | DecodedImage, recipe: Recipe, where: Placement) -> None:
    """Resample without antialiasing. The image is turned first: OpenCV rounds differently along x and y."""
    stored = encoded.stored(fast_chroma=min(1 / where.scale_x, 1 / where.scale_y) >= _COARSE)
    if isinstance(stored, Image.Image):
        stored = np.asarray(to_rgb(stored))
    upright = np.ascontiguousarray(encoded.turn.array(stored))
    scaled = resample_plain(recipe, upright, *scaled_size(recipe, encoded.width, encoded.height))
    out[:] = on_canvas(recipe, scaled, int(where.offset_x), int(where.offset_y))


def _fill(out: Pixels, encoded: EncodedImage | DecodedImage, recipe: Recipe, where: Placement) -> None:
    seen = view(where, recipe.width, recipe.height)
    turn = encoded.turn
    # The stored image is resampled first and turned afterwards, when it is smaller.
    x = seen.x.mirrored(encoded.width) if turn.flip_x else seen.x
    y = seen.y.mirrored(encoded.height) if turn.flip_y else seen.y
    if turn.transpose:
        x, y = y, x
    # As Pillow 13: first along x of the upright image, unless it shrinks much more along y.
    width, height = scaled_size(recipe, encoded.width, encoded.height)
    vertical_first = encoded.height - height > max(0, 2 * (encoded.width - width))
    if x.length * y.length < recipe.width * recipe.height:
        out[:] = np.tile(np.array(recipe.pad, np.uint8), (recipe.width, 1))  # copying whole rows is faster
    resampled = np.empty((y.length, x.length, 3), np.uint8) if turn.turns else out[seen.slices]
    resample(
        encoded.stored(fast_chroma=min(x.scale, y.scale) >= _COARSE),
        x,
        y,
        recipe.interpolation,
        resampled,
        vertical_first=vertical_first != turn.transpose,
    )
    if turn.turns:
        out[seen.slices] = turn.array(resampled)


def resample(
    stored: Pixels | Image.Image, x: Span, y: Span, interpolation: str, out: Pixels, *, vertical_first: bool = False
) -> None:
    """Resample a part of an image with antialiasing and SIMD instructions, close to Pillow's. Requires cykooz-resizer.

    It wraps the Rust crate fast_image_resize. Kernels are the same as Pillow's, and so is the rounding to 8 bits
    between the two passes. The weights have 16 bits instead of Pillow's 22, so about one value in some hundreds differs
    by one grey level, and very few by two.

    Args:
        stored: uint8 [h, w, 3] RGB, or a decoded Pillow image of any mode.
        x: the columns of `stored` that are resampled, and to how many pixels.
        y: the rows, likewise.
        interpolation: `bilinear`, `bicubic` or `lanczos`.
        out: uint8 [y.length, x.length, 3] RGB, to write into.
        vertical_first: convolve along y before x. The order changes the result a little, because values are rounded
            between the two passes.

    Raises:
        RequestError: `undecodable`: the colours of a Pillow image cannot be converted.
    """
    if x.scale == y.scale == 1 and not (x.start % 1 or y.start % 1):  # a tile of the graph's size: nothing to resample
        part = _copy(stored, int(x.start), int(y.start), int(x.end), int(y.end))
        out[:] = np.frombuffer(part, np.uint8).reshape(out.shape)
        return
    kind, support = _KERNELS[interpolation]
    kernel = simd.ResizeAlg.convolution(simd.FilterType[kind])
    width, height = stored.size if isinstance(stored, Image.Image) else (stored.shape[1], stored.shape[0])
    left, right = x.reach(support, width)
    x = Span(x.start - left, x.end - left, x.length)
    step = max(1, int(_BAND / (3 * (right - left) * y.scale)))
    for first in range(0, y.length, step):
        band = y.part(first, min(first + step, y.length))
        top, bottom = band.reach(support, height)
        band = Span(band.start - top, band.end - top, band.length)
        part = simd.ImageData(right - left, bottom - top, simd.PixelType.U8x3, _copy(stored, left, top, right, bottom))
        if vertical_first:
            part = _convolve(_convolve(part, None, band, kernel), x, None, kernel)
        else:
            part = _convolve(_convolve(part, x, None, kernel), None, band, kernel)
        out[first : first + band.length] = np.frombuffer(part.get_buffer(), np.uint8).reshape(-1, x.length, 3)


def _copy(stored: Pixels | Image.Image, left: int, top: int, right: int, bottom: int) -> bytes:
    if isinstance(stored, Image.Image):
        return to_rgb(stored.crop((left, top, right, bottom))).tobytes()
    return stored[top:bottom, left:right].tobytes()


def _convolve(part: Any, x: Span | None, y: Span | None, kernel: Any) -> Any:
    """Convolve an `ImageData` along x or y to a new one. An axis that is None stays as it is. Releases the GIL."""
    x = x or Span(0, part.width, part.width)
    y = y or Span(0, part.height, part.height)
    target = simd.ImageData(x.length, y.length, simd.PixelType.U8x3)
    box = simd.CropBox(x.start, y.start, min(x.end, part.width) - x.start, min(y.end, part.height) - y.start)
    if not hasattr(_thread, "resizer"):
        _thread.resizer = simd.Resizer()  # a resizer holds a lock while it works, so each thread has its own
    _thread.resizer.resize(part, target, simd.ResizeOptions(kernel, use_alpha=False, crop_box=box))
    return target
