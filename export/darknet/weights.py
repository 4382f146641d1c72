"""Reads a Darknet `.weights` file: a header, then nothing but float32 values in the order of the cfg's sections.

The file does not say what its values are. So all that can be checked is that they suffice, that none is left over, and
that they are finite.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import ExportError


class Header(NamedTuple):
    """A file's first 16 or 20 bytes. `seen` is the number of images seen in training."""

    major: int
    minor: int
    revision: int
    seen: int


class WeightsReader:
    """Hands out a file's values piece by piece.

    Attributes:
        header: the file's.
        total: number of float32 values after the header.
        taken: how many of them were handed out.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ExportError: it cannot be read, or its beginning is no Darknet header.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}") from error
        self.path = path
        self.header, size = _read_header(path, data)
        if (len(data) - size) % 4:
            raise ExportError(
                f"{path}: {len(data) - size:,} bytes after the header are no whole number of 4-byte floats; "
                "the file is cut off or no Darknet weights file"
            )
        self._values = np.frombuffer(data, "<f4", offset=size)
        self.total = len(self._values)
        self.taken = 0

    def take(self, shape: tuple[int, ...], what: str, section: str) -> npt.NDArray[np.float32]:
        """The next values, as a new array of `shape`. `what` and `section` say what for, in messages.

        Raises:
            ExportError: fewer are left, or one of them is not finite.
        """
        count = int(np.prod(shape))
        left = self.total - self.taken
        if count > left:
            raise ExportError(
                f"{self.path}: {section} needs {count:,} floats for its {what}, but only {left:,} of the file's "
                f"{self.total:,} are left; the file is cut off or belongs to another cfg"
            )
        values = self._values[self.taken : self.taken + count].astype(np.float32).reshape(shape)
        if not np.isfinite(values).all():
            raise ExportError(
                f"{self.path}: the {what} of {section} (floats {self.taken:,} to {self.taken + count:,}) are not all "
                "finite; the file is damaged or belongs to another cfg"
            )
        self.taken += count
        return values

    def finish(self, section: str) -> None:
        """Say that `section` was the last one with weights.

        Raises:
            ExportError: values are left over.
        """
        if self.taken != self.total:
            raise ExportError(
                f"{self.path}: {self.total - self.taken:,} of the file's {self.total:,} floats are left over after "
                f"{section}, the last with weights: the cfg asks for {self.taken:,}, so it belongs to another file"
            )


def _read_header(path: Path, data: bytes) -> tuple[Header, int]:
    """The header and its size in bytes. `seen` is an int64 since version 0.2."""
    if len(data) >= 16:
        major, minor, revision = (int(number) for number in np.frombuffer(data, "<i4", count=3))
        if 0 <= major <= 1000 and 0 <= minor <= 1000 and revision >= 0:
            wide = major * 10 + minor >= 2
            size = 20 if wide else 16
            if len(data) >= size:
                seen = int(np.frombuffer(data, "<i8" if wide else "<i4", count=1, offset=12)[0])
                return Header(major, minor, revision, seen), size
    raise ExportError(f"{path}: does not begin with the version numbers of a Darknet weights file")
