"""From bytes to pixels, uint8 [height, width, 3] RGB. Called by `resize` for every request, and by whoever draws.

JPEG is decoded by libjpeg-turbo (simplejpeg) and WebP by libwebp (OpenCV), bit for bit as Pillow does, and everything
else by Pillow. All release the GIL while they decode. No decoder sees a file before its header was checked (by `jpeg`,
`png`, ...): its size, and that it has no more parts than an image of that size can have. Pillow gets no metadata.
"""

import io
import warnings
from functools import cache
from importlib import import_module
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import AvifImagePlugin, Image, ImageFile

from service.errors import Reason, RequestError
from service.vision import bmp, gif, ifd, jpeg, png, tiff, webp
from service.vision.depth import Values, eight_bits
from service.vision.formats import Format, sniff
from service.vision.heif import check_avif, first_frame, still
from service.vision.turn import Turn

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
# The work of resampling grows with the square of a side that is longer: minutes for 50,000,000 x 1 pixels.
_MAX_SIDE = 1 << 20
_ROWS = 256  # that are put into another order at a time: OpenCV copies them
_BLOCK = 1 << 18  # bytes that Pillow reads at a time; what is left of a row it copies again with the next ones
# Warnings of libjpeg about files that are whole: viewers show them, and Pillow decodes them.
_HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters", "Adobe color transform", "JFIF revision")

# `EncodedImage` checks every size against its caller's limit. Pillow's own limit is one for the whole process.
Image.MAX_IMAGE_PIXELS = None
# A large image in one piece of memory, which goes back to the system when it is freed: Pillow's usual pieces of 16 MB
# are kept by the allocator, a whole image's for every thread.
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]  # what PILLOW_BLOCK_SIZE does
# Pillow warns of damaged metadata, always in other words: lines in the log, and memory, for whoever sends such files.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Images are decoded side by side, in the engine's threads.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class EncodedImage:
    """An image whose header was read; its pixels are decoded when they are asked for.

    Attributes:
        width, height: in pixels, with the EXIF orientation applied.
        turn: from the stored image to the upright one.
    """

    def __init__(self, data: bytes, max_pixels: int = MAX_PIXELS) -> None:
        """Read the header of an image.

        Raises:
            RequestError: `undecodable`, `not_an_image`, or `too_large` for more than `max_pixels`.
        """
        self._data = data  # what the decoder gets
        self._max_pixels = max_pixels
        self._format = sniff(data)
        self._alpha = False  # of what OpenCV decodes
        self._webp: webp.Header | None = None
        self._colours = b""  # of a BMP that OpenCV decodes
        self._bits = 0  # that a file of 16 bits per value says are used
        self._image: Image.Image | None = None  # stays None for what simplejpeg and OpenCV decode
        self._size, orientation = self._read()  # as stored
        self._check(*self._size)
        self.turn = Turn(orientation)
        self.width, self.height = self._size[::-1] if self.turn.transpose else self._size

    def stored(self, reduce: int = 1, *, fast_chroma: bool = False) -> Pixels | Image.Image:
        """Decode the pixels as they are stored, not turned: an array, or a Pillow image of any mode (see `to_rgb`).

        Args:
            reduce: 1, 2, 4 or 8: a JPEG is decoded to 1/`reduce` of its sides, rounded up, out of the low frequencies
                of its blocks, which is quicker. All other formats keep their size.
            fast_chroma: repeat a JPEG's chroma samples instead of interpolating between them, for images that will
                be made much smaller.

        Raises:
            RequestError: `undecodable`: cut off or corrupt.
        """
        if self._image is None and self._format is not Format.JPEG:
            return self._by_opencv()
        if self._image is None:
            width, height = (-(-side // reduce) for side in self._size)
            try:
                pixels = simplejpeg.decode_jpeg(
                    self._data, min_width=width, min_height=height, fastupsample=fast_chroma
                )
                return cast("Pixels", pixels)
            except ValueError as error:
                if not any(warning in str(error) for warning in _HARMLESS):
                    raise self._broken(error) from error
            self._image = self._open(self._jpeg.without_metadata(self._data))
        try:
            if isinstance(self._image, AvifImagePlugin.AvifImageFile):
                pixels = first_frame(self._image)
                return pixels if pixels.shape[2:] == (3,) else Image.fromarray(pixels)
            self._image.load()
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever they stumble over
            raise self._broken(error) from error
        return self._of_few_bits(self._image) if self._bits else self._image

    def image(self) -> Image.Image:
        """Decode to an upright Pillow image, mode RGB.

        Raises:
            RequestError: `undecodable`: cut off or corrupt.
        """
        stored = self.stored()
        return self.turn.image(Image.fromarray(stored) if isinstance(stored, np.ndarray) else to_rgb(stored))

    def _read(self) -> tuple[tuple[int, int], int]:
        """Read the header: width and height as stored, and the orientation."""
        data = self._data
        match self._format:
            case Format.JPEG:
                return self._read_jpeg()
            case Format.PNG:
                png_ = png.read(data)
                self._check(png_.width, png_.height)
                self._data, self._bits = png_.without_metadata(), png_.bits
                self._image = self._open(self._data)
                return self._image.size, png_.orientation
            case Format.TIFF:
                tiff_ = tiff.read(data)
                self._check(tiff_.width, tiff_.height)
                self._check(*tiff_.tile)
                self._data, self._bits = tiff_.without_metadata(), tiff_.bits
                self._image = self._open(self._data, tiff_.block)
                return self._image.size, tiff_.orientation
            case Format.WEBP:
                self._webp = webp.read(data)
                self._data, self._alpha = self._webp.pixels, self._webp.alpha
                self._check(*self._webp.place[2:])
                return (self._webp.width, self._webp.height), self._webp.orientation
            case Format.GIF:
                self._image = self._open(gif.without_metadata(data))
                return self._image.size, 1
            case Format.AVIF:
                check_avif(data, self._max_pixels)
                self._image = self._open(still(data))
                # Pillow has put the container's own orientation there, which comes before EXIF.
                return self._image.size, ifd.orientation(self._image.info.get("exif", b""))
            case Format.HEIF:
                _register_heif()
                self._image = self._open(data)
                return self._image.size, 1  # libheif turns it upright
            case Format.BMP:
                if bmp.run_lengths(data):
                    self._data, self._colours = bmp.of_numbers(data)
                    return bmp.size(data), 1
                self._image = self._open(data, max(_BLOCK, bmp.row(data)))
                return self._image.size, 1

    def _read_jpeg(self) -> tuple[tuple[int, int], int]:
        self._jpeg = jpeg.read(self._data)
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(self._data, strict=False)
        except ValueError as error:
            raise self._broken(error) from error
        except KeyError:  # a chroma subsampling that simplejpeg has no name for
            colours = "unknown"
        if colours not in ("YCbCr", "Gray", "RGB"):
            self._image = self._open(self._jpeg.without_metadata(self._data))
            width, height = self._image.size
        return (width, height), self._jpeg.orientation

    def _by_opencv(self) -> Pixels | Image.Image:
        # Straight to RGB where there is no transparency: another order would need a copy.
        form = cv2.IMREAD_UNCHANGED if self._alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        if self._colours:
            form = cv2.IMREAD_GRAYSCALE
        pixels = cv2.imdecode(np.frombuffer(self._data, np.uint8), form)
        x, y, *size = self._webp.place if self._webp else (0, 0, *self._size)
        if pixels is None or [*pixels.shape[1::-1]] != size:
            raise self._broken(ValueError("its pixels cannot be read"))
        if self._colours:
            image = Image.fromarray(pixels)
            image.putpalette(self._colours, "BGRX")
            return image
        if self._alpha:
            order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
            for top in range(0, len(pixels), _ROWS):
                cv2.cvtColor(pixels[top : top + _ROWS], order, dst=pixels[top : top + _ROWS])
        if tuple(size) != self._size:
            pixels = self._on_canvas(cast("Pixels", pixels), x, y)
        return Image.fromarray(pixels) if pixels.shape[2] == 4 else cast("Pixels", pixels)

    def _on_canvas(self, pixels: Pixels, x: int, y: int) -> Pixels:
        """A moving WebP's first frame on its canvas, which is transparent, or black where there is no transparency."""
        (width, height), (rows, columns) = self._size, pixels.shape[:2]
        if x + columns > width or y + rows > height:
            raise self._broken(ValueError("its first frame is larger than the image"))
        canvas = np.zeros((height, width, 4 if self._alpha else 3), np.uint8)
        canvas[y : y + rows, x : x + columns, 3:] = 255
        canvas[y : y + rows, x : x + columns, : pixels.shape[2]] = pixels
        return canvas

    def _of_few_bits(self, image: Image.Image) -> Image.Image:
        if image.mode.startswith("I;16"):
            return Image.fromarray(eight_bits(np.asarray(image), self._bits))
        # Of colours Pillow has read the upper 8 bits.
        pixels = cast("Values", cv2.imdecode(np.frombuffer(self._data, np.uint8), cv2.IMREAD_UNCHANGED))
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[1::-1] != self._size:
            return image
        colours = eight_bits(pixels[:, :, 2::-1], self._bits)
        if pixels.shape[2] == 3:
            return Image.fromarray(colours)
        return Image.fromarray(np.dstack([colours, eight_bits(pixels[:, :, 3], self._bits)]))

    def _check(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise RequestError(
                Reason.TOO_LARGE,
                f"The image has {width} x {height} = {width * height / 1e6:.1f} million pixels, and at most "
                f"{self._max_pixels / 1e6:g} million are decoded. Send a smaller one.",
            )
        if max(width, height) > _MAX_SIDE:
            raise RequestError(
                Reason.TOO_LARGE,
                f"The image has {width} x {height} pixels, and sides of at most {_MAX_SIDE} are decoded. "
                "Send a smaller one.",
            )

    def _open(self, data: bytes, block: int = _BLOCK) -> Image.Image:
        """Let Pillow read the header of a file that was checked. `block` is how many bytes it will read at a time."""
        try:
            image = Image.open(io.BytesIO(data), formats=[self._format])
        except Exception as error:
            raise self._broken(error) from error
        if image.mode in ("I", "F"):
            raise RequestError(
                Reason.NOT_AN_IMAGE,
                f"The {self._format} holds 32-bit numbers (mode {image.mode}), whose black and white are not known. "
                "Send 8 or 16 bits per channel.",
            )
        if isinstance(image, ImageFile.ImageFile):
            image.decodermaxblock = block
        return image

    def _broken(self, error: Exception) -> RequestError:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        if "BytesIO" in reason:  # Pillow's "cannot identify image file <_io.BytesIO object at ...>"
            reason = "unreadable header"
        return RequestError(
            Reason.UNDECODABLE, f"The {self._format} is cut off or corrupt ({reason}). Send the whole file again."
        )


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: tuple[int, int] | None = None) -> Pixels:
    """Decode an image to uint8 [h, w, 3] RGB, upright.

    Args:
        data: a JPEG, PNG, WebP, BMP, GIF (its first frame) or TIFF (its first page).
        max_pixels: larger images are refused.
        at_least: width and height in pixels of the upright image that are enough: a JPEG is then decoded to the
            smallest of 1/1, 1/2, 1/4 and 1/8 of its size that has as many.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`.
    """
    encoded = EncodedImage(data, max_pixels)
    reduce = 1
    if at_least is not None:
        reduce = max(
            k
            for k in (1, 2, 4, 8)
            if k == 1 or (encoded.width >= k * at_least[0] and encoded.height >= k * at_least[1])
        )
    stored = encoded.stored(reduce)
    pixels = stored if isinstance(stored, np.ndarray) else np.asarray(to_rgb(stored))
    return encoded.turn.array(pixels)


@cache
def _register_heif() -> None:
    options = {"thumbnails": False, "depth_images": False, "aux_images": False, "decode_threads": 1}
    import_module("pillow_heif").register_heif_opener(**options)  # the extra `heif`


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image, or a part of one, from any mode to RGB.

    Transparent pixels are laid over white, as viewers show them (Pillow's own `convert("RGB")` would bring out whatever
    colour lies hidden under them). Of 16 bits the upper 8 are taken (Pillow would clip greys to 255).

    Raises:
        RequestError: `undecodable`: colours that Pillow cannot convert.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    try:
        if image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.new("RGB", image.size, "white")
            image.paste(above, mask=above)
        return image.convert("RGB")
    except ValueError as error:
        detail = f"The image's colours (mode {image.mode}) cannot be converted: {error}. Send it in RGB."
        raise RequestError(Reason.UNDECODABLE, detail) from error
