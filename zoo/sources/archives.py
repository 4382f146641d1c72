"""Reads the members of an archive in turn: a wheel or another zip, or a tarball. Nothing is unpacked to the disk.

Reading is limited, because a small archive may unpack to any size, have millions of members, or a header as large as
the memory. `packages` copies members out.
"""

import bz2
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from zoo.errors import SourceError

_MOST_MEMBERS = 100_000
_LARGEST_HEADER = 16_000_000  # bytes that are read at once: a zip's list of members, a tarball's long names
_LARGEST_UNPACKED = 8_000_000_000  # bytes of a tarball
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of wheels; `zipfile` unpacks others without a limit
_UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    ValueError,
    NotImplementedError,
    RecursionError,
)


class _LimitError(ValueError):
    """An archive exceeds a limit."""


@contextmanager
def _damaged() -> Iterator[None]:
    """Make the system's errors those of an archive: `bz2` raises them for damage, a zip may name a place before 0."""
    try:
        yield
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


class _Reader(io.RawIOBase):
    """A file that limits the size of each read and the total number of bytes read.

    A damaged one raises ValueError, so that it is told from a disk on which nothing can be written.
    """

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._left = file, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        before = self._file.tell()
        if whence == 0:
            self._count(max(0, offset - before))  # in a compressed file, the bytes in between are read
        with _damaged():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_HEADER:
            raise _LimitError(f"a header of {size:,} bytes")
        with _damaged():
            data = self._file.read(_LARGEST_HEADER + 1 if size < 0 else size)
        if len(data) > _LARGEST_HEADER:
            raise _LimitError("a list of members that is too long")
        self._count(len(data))
        return data

    def _count(self, read: int) -> None:
        self._left -= read
        if self._left < 0:
            raise _LimitError(f"more than {_LARGEST_UNPACKED:,} bytes")


@contextmanager
def open_members(archive: Path) -> Iterator[Iterator[tuple[str, Callable[[], IO[bytes]]]]]:
    """Open an archive as pairs of a path and a function that opens that file. Call it before taking the next pair.

    Raises:
        SourceError: it is not a readable archive, or exceeds a limit.
    """
    try:
        with archive.open("rb") as file:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(cast(IO[bytes], _Reader(file, 2 * _LARGEST_UNPACKED))) as wheel:
                    yield _zipped(wheel)
            else:
                with _unpacked(file) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tarball:
                    yield _tarred(tarball)
    except _UNREADABLE as error:
        raise SourceError(f"{archive.name} is not an archive that can be read ({error}): try again") from error


def _zipped(wheel: zipfile.ZipFile) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    for info in wheel.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.filename and not info.is_dir() and kind in (0, stat.S_IFREG):
            yield info.filename, partial(_open_zipped, wheel, info)


def _open_zipped(wheel: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.compress_type not in _METHODS or info.flag_bits & 1:
        raise zipfile.BadZipFile(f"{info.filename} is packed in another way than a wheel's files, or encrypted")
    return wheel.open(info)


def _tarred(tarball: tarfile.TarFile) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    count = 0
    while (info := tarball.next()) is not None:
        count += 1
        if count > _MOST_MEMBERS:
            raise _LimitError(f"more than {_MOST_MEMBERS:,} members")
        tarball.members.clear()  # type: ignore[attr-defined] # it would keep all members in memory
        if info.isfile():
            yield info.name, partial(_open_tarred, tarball, info)


def _open_tarred(tarball: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tarball.extractfile(info)
    if file is None:
        raise tarfile.TarError(f"{info.name} is not a file")
    return file


@contextmanager
def _unpacked(file: IO[bytes]) -> Iterator[Any]:
    """Decompress a tarball while it is read: gzip, as of sdists and npm, bzip2, or not compressed."""
    magic = file.read(3)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.open(file) as unpacked:
            yield _Reader(cast(IO[bytes], unpacked), _LARGEST_UNPACKED)
    elif magic == b"BZh":
        with bz2.open(file) as unpacked:
            yield _Reader(cast(IO[bytes], unpacked), _LARGEST_UNPACKED)
    else:
        yield _Reader(file, _LARGEST_UNPACKED)
