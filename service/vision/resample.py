"""Antialiased resampling with SIMD instructions, close to Pillow's. Called by `resize`.

The library is cykooz-resizer, which wraps the Rust crate fast_image_resize. Kernels are the same as Pillow's, and so is
the rounding to 8 bits between the two passes. The weights have 16 bits instead of Pillow's 22, so about one value in
some hundreds differs by one grey level, and very few by two.
"""

import threading
from typing import Any

import numpy as np
from PIL import Image

from service.vision.colours import to_rgb
from service.vision.decode import Pixels
from service.vision.geometry import Span

try:
    import cykooz_resizer as simd
except ImportError:  # not installed: it has no wheel for this platform
    simd = None

AVAILABLE = simd is not None

# Bytes of source pixels that are copied at a time. A small band needs little memory and fits into the CPU's cache.
_BAND = 2 << 20
_thread = threading.local()


def resample(
    stored: Pixels | Image.Image, x: Span, y: Span, interpolation: str, *, vertical_first: bool = False
) -> Pixels:
    """Resample a part of an image. Requires `AVAILABLE`.

    Args:
        stored: uint8 [h, w, 3] RGB, or a decoded Pillow image of any mode.
        x: the columns of `stored` that are resampled, and to how many pixels.
        y: the rows, likewise.
        interpolation: `bilinear` or `bicubic`.
        vertical_first: convolve along y before x. The order changes the result a little, because values are rounded
            between the two passes.

    Returns:
        uint8 [y.length, x.length, 3] RGB.

    Raises:
        RequestError: `undecodable`: the colours of a Pillow image cannot be converted.
    """
    kind, support = ("bilinear", 1.0) if interpolation == "bilinear" else ("catmull_rom", 2.0)
    kernel = simd.ResizeAlg.convolution(simd.FilterType[kind])
    width, height = stored.size if isinstance(stored, Image.Image) else (stored.shape[1], stored.shape[0])
    left, right = x.reach(support, width)
    x = Span(x.start - left, x.end - left, x.length)
    resampled = np.empty((y.length, x.length, 3), np.uint8)
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
        resampled[first : first + band.length] = np.frombuffer(part.get_buffer(), np.uint8).reshape(-1, x.length, 3)
    return resampled


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
