"""Encodes images of all supported kinds, and lists the images of a folder. Called by the clients."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from zooserve_client.errors import ImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
"""How the names of images end, in lower case."""
_ORIENTATION = 274  # the tag of EXIF
_PNG_COLOURS = {1: 0, 3: 2, 4: 6}  # channels -> PNG's colour type: grey, RGB, RGBA


class PilImage(Protocol):
    """The methods of `PIL.Image.Image` that are used; Pillow itself is not needed."""

    def convert(self, mode: str) -> Any: ...

    def getexif(self) -> Any: ...


ImageInput = bytes | str | os.PathLike[str] | npt.NDArray[np.uint8] | PilImage
"""A file's bytes, its path, an array uint8 [H, W, 3] (RGB), [H, W, 4] (RGBA) or [H, W] (grey), or a PIL image."""


def read_image(image: ImageInput) -> bytes:
    """Return an encoded image. Arrays and PIL images become lossless PNGs.

    Raises:
        ImageError: the file cannot be read.
        TypeError: it is not an `ImageInput`.
        ValueError: an array has another shape or dtype, or a PIL image has 32-bit numbers.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"{os.fspath(image)}: {error.strerror or error}", "unreadable") from error
    if not isinstance(image, np.ndarray) and hasattr(image, "convert"):
        image = _pixels(image)
    if isinstance(image, np.ndarray):
        return _png(image)
    raise TypeError(f"an image is bytes, a path, a uint8 array or a PIL image, not {type(image).__name__}")


def images_in(folder: str | os.PathLike[str]) -> list[Path]:
    """Return all image files of a folder and its subfolders, sorted by path. Hidden files and folders are skipped.

    Links to folders are not followed. A link that leads nowhere is returned: reading it says so.

    Raises:
        NotADirectoryError: there is no such folder.
        OSError: it, or a folder in it, cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    found = []
    for parent, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not _is_special(path)]
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise error


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, for example, of which reading may not end."""
    return os.path.exists(path) and not os.path.isfile(path)  # noqa: PTH110, PTH113 - `Path`'s raise errors


def _pixels(image: PilImage) -> npt.NDArray[np.uint8]:
    """Return what a server would see in a PIL image's file: upright, with its transparency, of 16 bits the upper 8."""
    mode = str(getattr(image, "mode", ""))
    if mode in {"I", "F"}:
        raise ValueError(
            f"a PIL image of 32-bit numbers (mode {mode}), whose black and white are not known: make 8 bits of them"
        )
    if mode.startswith("I;16"):  # which `convert` would clip to 255
        pixels = (np.asarray(image) >> 8).astype(np.uint8)
    else:
        transparent = getattr(image, "has_transparency_data", False)
        pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"), np.uint8)
    orientation = image.getexif().get(_ORIENTATION, 1)  # read after the pixels: Pillow turns a TIFF when it loads them
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in {3, 4, 7, 8} else 1, :: -1 if orientation in {2, 3, 6, 7} else 1]


def _png(array: npt.NDArray[Any]) -> bytes:
    """Encode a PNG (ISO 15948) with fast compression."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in _PNG_COLOURS or 0 in array.shape:
        raise ValueError(
            f"an array of {array.dtype} {list(array.shape)}: expected uint8 [H, W, 3], [H, W, 4] or [H, W]"
        )
    height, width = array.shape[:2]
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = array.reshape(height, -1)
    rows[:, 1 + channels :] -= array.reshape(height, -1)[:, :-channels]  # filter 1: the difference to the left
    rows[:, 0] = 1
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
