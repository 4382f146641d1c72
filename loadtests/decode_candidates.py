"""Ways from a JPEG's bytes to a graph's input that are quicker than Pillow's, for `decode_recipes` to compare.

Each is a way to decode and a way to resample. What `service.vision.resize` does is one of them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import cykooz_resizer as simd
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from service.vision.decode import Pixels
from service.vision.geometry import Span, view
from service.vision.resample import resample
from zoo.card import Recipe
from zoo.recipe import placement

Resample = Callable[[Pixels, Span, Span, str], Pixels]


class Decode(NamedTuple):
    """How libjpeg-turbo decodes.

    Attributes:
        margin: the smallest of 1/1, 1/2, 1/4 and 1/8 of the size that leaves so many times the target's pixels along
            each axis; None: full size.
        fast_chroma: repeat chroma samples, where the standard way interpolates between them.
        fast_dct: the less accurate integer DCT.
    """

    margin: float | None = None
    fast_chroma: bool = False
    fast_dct: bool = False


class Way(NamedTuple):
    """One candidate. `largest` is the number of megapixels above which it is not worth waiting for."""

    name: str
    decode: Decode
    resample: Resample
    largest: float = math.inf


def apply(way: Way, data: bytes, width: int, height: int, recipe: Recipe) -> Pixels:
    """Turn a JPEG of `width` x `height` pixels into the graph's input, uint8 [recipe.height, recipe.width, 3]."""
    seen = view(placement(recipe, width, height), recipe.width, recipe.height)
    scale = min(seen.x.scale, seen.y.scale)
    reduce = 1
    if way.decode.margin is not None:
        reduce = max(k for k in (1, 2, 4, 8) if k == 1 or scale >= k * way.decode.margin)
    pixels: Pixels = simplejpeg.decode_jpeg(
        data,
        min_width=-(-width // reduce),
        min_height=-(-height // reduce),
        fastdct=way.decode.fast_dct,
        fastupsample=way.decode.fast_chroma,
    )
    x, y = (Span(span.start / reduce, span.end / reduce, span.length) for span in (seen.x, seen.y))
    out = np.empty((recipe.height, recipe.width, 3), np.uint8)
    out[:] = np.tile(np.array(recipe.pad, np.uint8), (recipe.width, 1))
    out[seen.slices] = way.resample(pixels, x, y, recipe.interpolation)
    return out


def pillow(gap: float | None = None) -> Resample:
    """Pillow's own; with a `gap`, after shrinking by a whole factor to at least `gap` times the target."""
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

    def resampled(pixels: Pixels, x: Span, y: Span, interpolation: str) -> Pixels:
        box = (x.start, y.start, x.end, y.end)
        size = (x.length, y.length)
        resized = Image.fromarray(pixels).resize(size, filters[interpolation], box, reducing_gap=gap)
        return np.asarray(resized, np.uint8)

    return resampled


def one_call(pixels: Pixels, x: Span, y: Span, interpolation: str) -> Pixels:
    """cykooz-resizer as its documentation shows it: it chooses the order of the two passes."""
    kind = simd.FilterType.bilinear if interpolation == "bilinear" else simd.FilterType.catmull_rom
    height, width = pixels.shape[:2]
    source = simd.ImageData(width, height, simd.PixelType.U8x3, pixels.tobytes())
    target = simd.ImageData(x.length, y.length, simd.PixelType.U8x3)
    box = simd.CropBox(x.start, y.start, x.end - x.start, y.end - y.start)
    options = simd.ResizeOptions(simd.ResizeAlg.convolution(kind), use_alpha=False, crop_box=box)
    simd.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(y.length, x.length, 3)


def opencv(interpolation: int) -> Resample:
    """One `cv2.resize` of the part, rounded to whole pixels."""
    return lambda pixels, x, y, _interpolation: _resize(_part(pixels, x, y), x, y, interpolation)


def area_then_linear(pixels: Pixels, x: Span, y: Span, _interpolation: str) -> Pixels:
    """INTER_AREA to twice the target, where the picture is larger, then INTER_LINEAR."""
    part = _part(pixels, x, y)
    if part.shape[0] > 2 * y.length and part.shape[1] > 2 * x.length:
        part = np.asarray(cv2.resize(part, (2 * x.length, 2 * y.length), interpolation=cv2.INTER_AREA))
    return _resize(part, x, y, cv2.INTER_LINEAR)


def gauss_then_linear(pixels: Pixels, x: Span, y: Span, _interpolation: str) -> Pixels:
    """A Gaussian that, with INTER_LINEAR after it, has the variance of Pillow's triangle."""
    part = _part(pixels, x, y)
    sigma = [math.sqrt(max(0.0, span.scale**2 - 1) / 6) for span in (x, y)]
    if min(sigma) > 0.1:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_REPLICATE))
    return _resize(part, x, y, cv2.INTER_LINEAR)


def fir_then_warp(pixels: Pixels, x: Span, y: Span, interpolation: str) -> Pixels:
    """Pillow's kernel sampled at whole pixels, then `cv2.warpAffine`: together, that kernel, linear in between."""
    taps = [_taps(span.scale, interpolation) for span in (x, y)]
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = x.reach(2.0, width), y.reach(2.0, height)
    part = pixels[top:bottom, left:right]
    if max(len(t) for t in taps) > 1:
        part = np.asarray(cv2.sepFilter2D(part, -1, taps[0], taps[1], borderType=cv2.BORDER_REPLICATE))
    matrix = np.array(
        [
            [x.scale, 0.0, x.start - left + x.scale / 2 - 0.5],
            [0.0, y.scale, y.start - top + y.scale / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (x.length, y.length)
    return np.asarray(cv2.warpAffine(part, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def matrices(pixels: Pixels, x: Span, y: Span, interpolation: str) -> Pixels:
    """Pillow's kernels as two float32 matrix products, rounded once at the end."""
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = x.reach(2.0, width), y.reach(2.0, height)
    rows = _weights(y, top, bottom, height, interpolation)
    columns = _weights(x, left, right, width, interpolation)
    part = pixels[top:bottom, left:right].astype(np.float32)
    half = (rows @ part.reshape(part.shape[0], -1)).reshape(y.length, part.shape[1], 3)
    return np.asarray(np.clip(np.rint(np.matmul(columns, half)), 0, 255), np.uint8)


def two_passes(pixels: Pixels, x: Span, y: Span, interpolation: str) -> Pixels:
    """What `service.vision.resize` does with these pictures: two SIMD passes, rounded in between, along x first."""
    return resample(pixels, x, y, interpolation)


WAYS = (
    Way("Pillow's resize, simplejpeg", Decode(), pillow()),
    Way("SIMD passes, fast chroma", Decode(fast_chroma=True), two_passes),
    Way("SIMD passes, fast DCT", Decode(fast_dct=True), two_passes),
    Way("SIMD passes, DCT to >= 1x", Decode(1.0), two_passes),
    Way("SIMD passes, DCT to >= 1.5x", Decode(1.5), two_passes),
    Way("SIMD passes, DCT to >= 2x", Decode(2.0), two_passes),
    Way("SIMD passes, DCT to >= 3x", Decode(3.0), two_passes),
    Way("SIMD passes, DCT to >= 5x", Decode(5.0), two_passes),
    Way("SIMD in one call", Decode(), one_call),
    Way("two float32 matrix products", Decode(), matrices, largest=1.0),
    Way("Pillow, reducing_gap 2", Decode(), pillow(2.0)),
    Way("Pillow, reducing_gap 3", Decode(), pillow(3.0)),
    Way("Pillow's resize, DCT to >= 2x", Decode(2.0), pillow()),
    Way("FIR, then warpAffine", Decode(), fir_then_warp),
    Way("FIR, then warpAffine, DCT to >= 2x", Decode(2.0), fir_then_warp),
    Way("Gaussian, then INTER_LINEAR", Decode(), gauss_then_linear),
    Way("INTER_AREA", Decode(), opencv(cv2.INTER_AREA)),
    Way("INTER_AREA, DCT to >= 2x", Decode(2.0), opencv(cv2.INTER_AREA)),
    Way("INTER_AREA to 2x, INTER_LINEAR", Decode(), area_then_linear),
    Way("INTER_LINEAR", Decode(), opencv(cv2.INTER_LINEAR)),
    Way("INTER_LINEAR_EXACT", Decode(), opencv(cv2.INTER_LINEAR_EXACT)),
    Way("INTER_LINEAR, DCT to >= 1x", Decode(1.0), opencv(cv2.INTER_LINEAR)),
)


def _part(pixels: Pixels, x: Span, y: Span) -> Pixels:
    left, top = round(x.start), round(y.start)
    return pixels[top : max(top + 1, round(y.end)), left : max(left + 1, round(x.end))]


def _resize(part: Pixels, x: Span, y: Span, interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(part, (x.length, y.length), interpolation=interpolation))


def _kernel(interpolation: str, at: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pillow's kernels: a triangle, or Keys' cubic with a = -0.5."""
    far = np.abs(at)
    if interpolation == "bilinear":
        return np.asarray(np.maximum(0.0, 1.0 - far))
    near, outer = (1.5 * far - 2.5) * far * far + 1.0, ((far - 5.0) * far + 8.0) * far * -0.5 + 2.0
    return np.asarray(np.select([far < 1.0, far < 2.0], [near, outer], 0.0))


def _taps(scale: float, interpolation: str) -> npt.NDArray[np.float32]:
    if scale <= 1.0:
        return np.ones(1, np.float32)
    reach = math.ceil(scale * (1.0 if interpolation == "bilinear" else 2.0)) - 1
    taps = _kernel(interpolation, np.arange(-reach, reach + 1) / scale)
    return np.asarray(taps / taps.sum(), np.float32)


def _weights(span: Span, first: int, last: int, side: int, interpolation: str) -> npt.NDArray[np.float32]:
    """Weights [span.length, last - first] of the source pixels `first` to before `last`."""
    scale = span.scale
    centres = span.start + (np.arange(span.length) + 0.5) * scale
    at = (np.arange(max(0, first), min(side, last)) + 0.5 - centres[:, None]) / max(1.0, scale)
    weights = _kernel(interpolation, at)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
