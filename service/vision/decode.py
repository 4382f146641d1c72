"""Decodes image files to pixels, uint8 [height, width, 3] RGB. Called by `resize` for every request, and by `draw`.

JPEG is decoded by libjpeg-turbo (simplejpeg) and WebP by libwebp (OpenCV), with the same pixels as Pillow's, bit for
bit. Every other format is decoded by Pillow. All three release the GIL while they decode.

No decoder gets a file before its header was checked by the module of its format (`jpeg`, `png`, ...). The header gives
the image's size; a file with more parts (chunks, segments, scans) than an image of that size can have is refused.
Metadata is removed from a JPEG, PNG, TIFF or GIF before Pillow gets it.
"""

import io
import warnings
from functools import cache
from importlib import import_module
from typing import cast

import cv2
import numpy as np
import simplejpeg
from PIL import AvifImagePlugin, Image, ImageFile

from service.errors import Reason, RequestError
from service.vision import bmp, gif, ifd, jpeg, png, tiff, webp
from service.vision.formats import MAX_PIXELS, Format, check_size, sniff
from service.vision.heif import check_avif, first_frame, still
from service.vision.pixels import Pixels, Turn, Values, eight_bits, to_rgb
from service.vision.refusals import corrupt

_ROWS = 256  # rows whose channels are reordered at a time, because OpenCV makes a copy of them
_BLOCK = 1 << 18  # bytes that Pillow reads at a time; it copies an incomplete row again together with the next block
_PLAIN, _PLAIN_SIDE = 1 << 21, 4096  # pixels, and those of a side, of a plain JPEG at most
# Warnings of libjpeg about complete files, which Pillow decodes and viewers show.
_HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters", "Adobe color transform", "JFIF revision")

# Pillow's limit would hold for the whole process; `EncodedImage` has a limit for each call instead.
Image.MAX_IMAGE_PIXELS = None
# Pillow stores an image in blocks of 16 MB. The allocator keeps freed blocks of that size: as much as a whole image for
# every thread. One larger block per image is returned to the system when it is freed.
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]  # as PILLOW_BLOCK_SIZE does
# Pillow warns about damaged metadata, with a different text for each file. Python logs and remembers each different
# warning, so clients could fill the log and the memory with such files.
warnings.filterwarnings("ignore", module=r"PIL\.")
# The engine's threads already decode several images in parallel.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class EncodedImage:
    """An image file whose header was read. Its pixels are decoded by `stored` or `image`.

    Attributes:
        width, height: of the upright image (EXIF orientation applied), in pixels.
        turn: turns the stored pixels upright.
    """

    def __init__(self, data: bytes, max_pixels: int = MAX_PIXELS) -> None:
        """Read and check the header of an image file.

        Args:
            data: the file's content.
            max_pixels: larger images are refused.

        Raises:
            RequestError: `undecodable`: damaged or incomplete; `not_an_image`: not in a format that is read;
                `too_large`: more than `max_pixels` pixels, or a side that is too long.
        """
        self._data = data  # the bytes that the decoder gets
        self._max_pixels = max_pixels
        self._format = sniff(data)
        self._alpha = False  # whether a WebP has transparency
        self._webp: webp.Header | None = None
        self._palette = b""  # of a run-length encoded BMP
        self._bits = 0  # bits per value that are used, where a file with 16 bits says so
        self._negative = False  # whether 0 is white
        self._image: Image.Image | None = None  # Pillow's; None for files that simplejpeg or OpenCV decodes
        self._size, orientation = self._read()  # width and height as stored
        self._check(*self._size)
        self.turn = Turn(orientation)
        self.width, self.height = self._size[::-1] if self.turn.transpose else self._size

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether it is a complete JPEG that any decoder shows alike: of one scan, upright, grey or YCbCr, not huge."""
        return (
            self._format is Format.JPEG
            and self._image is None
            and self._colours in ("YCbCr", "Gray")
            and self._jpeg.orientation == 1
            and self._jpeg.one_pass
            and self._data.endswith(jpeg.END)
            and self.width * self.height <= _PLAIN
            and max(self.width, self.height) <= _PLAIN_SIDE
        )

    def stored(self, *, fast_chroma: bool = False) -> Pixels | Image.Image:
        """Decode the pixels as they are stored, without applying the EXIF orientation.

        Args:
            fast_chroma: repeat a JPEG's chroma samples instead of interpolating between them. Faster, and good enough
                for images that are then made much smaller.

        Returns:
            uint8 [h, w, 3] RGB, or a Pillow image of any mode, which `to_rgb` converts.

        Raises:
            RequestError: `undecodable`: the file is cut off or corrupt.
        """
        if self._image is None and self._format is not Format.JPEG:
            return self._by_opencv()
        if self._image is None:
            try:
                return cast("Pixels", simplejpeg.decode_jpeg(self._data, fastupsample=fast_chroma))
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
        except Exception as error:  # Pillow's plugins raise exceptions of many types
            raise self._broken(error) from error
        if self._negative:
            return Image.fromarray(255 - eight_bits(np.asarray(self._image), self._bits or 16))
        return self._to_eight_bits(self._image) if self._bits else self._image

    def image(self) -> Image.Image:
        """Decode to an upright Pillow image, mode RGB.

        Raises:
            RequestError: `undecodable`: the file is cut off or corrupt.
        """
        stored = self.stored()
        return self.turn.image(Image.fromarray(stored) if isinstance(stored, np.ndarray) else to_rgb(stored))

    def _read(self) -> tuple[tuple[int, int], int]:
        """Read the header. Returns (width, height) as stored, in pixels, and the EXIF orientation, 1 to 8."""
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
                self._data, self._bits, self._negative = tiff_.without_metadata(), tiff_.bits, tiff_.negative
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
                # Pillow replaces the EXIF orientation by that of the AVIF container, which takes precedence.
                return self._image.size, ifd.orientation(self._image.info.get("exif", b""))
            case Format.HEIF:
                _register_heif()
                self._image = self._open(data)
                return self._image.size, 1  # libheif returns the image upright
            case Format.BMP:
                if bmp.run_lengths(data):
                    self._data, self._palette = bmp.split_palette(data)
                    return bmp.size(data), 1
                self._image = self._open(data, max(_BLOCK, bmp.row(data)))
                return self._image.size, 1

    def _read_jpeg(self) -> tuple[tuple[int, int], int]:
        self._jpeg = jpeg.read(self._data)
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(self._data, strict=False)
        except ValueError as error:
            raise self._broken(error) from error
        except KeyError:  # a chroma subsampling that simplejpeg does not know
            colours = "unknown"
        self._colours = colours
        if colours not in ("YCbCr", "Gray", "RGB"):
            self._image = self._open(self._jpeg.without_metadata(self._data))
            width, height = self._image.size
        return (width, height), self._jpeg.orientation

    def _by_opencv(self) -> Pixels | Image.Image:
        # Without transparency OpenCV returns RGB, so that the channels need not be reordered in a copy.
        form = cv2.IMREAD_UNCHANGED if self._alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        if self._palette:
            form = cv2.IMREAD_GRAYSCALE
        pixels = cv2.imdecode(np.frombuffer(self._data, np.uint8), form)
        x, y, *size = self._webp.place if self._webp else (0, 0, *self._size)
        if pixels is None or [*pixels.shape[1::-1]] != size:
            raise self._broken(ValueError("its pixels cannot be read"))
        if self._palette:
            image = Image.fromarray(pixels)
            image.putpalette(self._palette, "BGRX")
            return image
        if self._alpha:
            order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
            for top in range(0, len(pixels), _ROWS):
                cv2.cvtColor(pixels[top : top + _ROWS], order, dst=pixels[top : top + _ROWS])
        if tuple(size) != self._size:
            pixels = self._on_canvas(cast("Pixels", pixels), x, y)
        return Image.fromarray(pixels) if pixels.shape[2] == 4 else cast("Pixels", pixels)

    def _on_canvas(self, pixels: Pixels, x: int, y: int) -> Pixels:
        """Put the first frame of an animated WebP at (x, y) on its canvas.

        The canvas is transparent; where the file has no transparency, it is black.
        """
        (width, height), (rows, columns) = self._size, pixels.shape[:2]
        if x + columns > width or y + rows > height:
            raise self._broken(ValueError("its first frame is larger than the image"))
        canvas = np.zeros((height, width, 4 if self._alpha else 3), np.uint8)
        canvas[y : y + rows, x : x + columns, 3:] = 255
        canvas[y : y + rows, x : x + columns, : pixels.shape[2]] = pixels
        return canvas

    def _to_eight_bits(self, image: Image.Image) -> Image.Image:
        """Convert an image of 16 bits per value of which fewer are used (see `depth`)."""
        if image.mode.startswith("I;16"):
            return Image.fromarray(eight_bits(np.asarray(image), self._bits))
        # Pillow keeps only the upper 8 bits of colours, so OpenCV decodes them again.
        pixels = cast("Values", cv2.imdecode(np.frombuffer(self._data, np.uint8), cv2.IMREAD_UNCHANGED))
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[1::-1] != self._size:
            return image
        colours = eight_bits(pixels[:, :, 2::-1], self._bits)
        if pixels.shape[2] == 3:
            return Image.fromarray(colours)
        return Image.fromarray(np.dstack([colours, eight_bits(pixels[:, :, 3], self._bits)]))

    def _check(self, width: int, height: int) -> None:
        check_size(width, height, self._max_pixels)

    def _open(self, data: bytes, block: int = _BLOCK) -> Image.Image:
        """Open a checked file with Pillow, which reads its header.

        Args:
            data: the file.
            block: bytes that Pillow reads at a time when it decodes.
        """
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
        return corrupt(self._format, reason)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image to uint8 [h, w, 3] RGB, upright.

    Args:
        data: an image file of a format in `formats.READABLE`. Of a GIF or an animated WebP the first frame is decoded,
            of a TIFF the first page.
        max_pixels: larger images are refused.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`, as for `EncodedImage`.
    """
    encoded = EncodedImage(data, max_pixels)
    stored = encoded.stored()
    pixels = stored if isinstance(stored, np.ndarray) else np.asarray(to_rgb(stored))
    return encoded.turn.array(pixels)


@cache
def _register_heif() -> None:
    options = {"thumbnails": False, "depth_images": False, "aux_images": False, "decode_threads": 1}
    import_module("pillow_heif").register_heif_opener(**options)  # the extra `heif`
