"""Reading of untrusted files: only regular files are opened, their size is limited, and their names are escaped.

A pipe, a socket or a device in a folder of models would block a reader, and a file may have any size. Here is also how
a file is written that others may read meanwhile.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

LARGEST_CARD = 4_000_000
"""The largest size in bytes of a card, a label file or a cached answer; the largest of the zoo has 60,000."""
LINE = 4000
"""The most characters of a message that are shown."""
PART = ".part"
"""How the hidden name of a file ends that `replacing` has not completed."""
UNFINISHED = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(PART)}")
"""Such a name; hidden files of other programs may end as it does."""
_NAME_LENGTH = 200


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading, or a link to one.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket, a device or a folder.
    """
    _refuse_other_kinds(path, path.stat().st_mode)  # opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    try:
        _refuse_other_kinds(path, os.fstat(descriptor).st_mode)  # it may have been replaced since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = LARGEST_CARD) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: as `open_regular`, or the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= most else b""
        if size > most or len(data) > size:
            raise OSError(errno.EFBIG, f"it has more than the {min(size, most):,} bytes that it may have", str(path))
        return data


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path`, complete, when the block ends without an error; its folder is made.

    Several processes may write the same at once: the last one stays. Others may read it as the umask says, unlike files
    of `tempfile`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}{PART}")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def shown(text: object, most: int = _NAME_LENGTH) -> str:
    r"""Escape a name, or a message that contains one, for the log or a terminal: one line, no control characters.

    What cannot be printed becomes an escape such as `\n` or `\x1b`. A text of more than `most` characters is cut.
    """
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in str(text)[: most + 1]
    )
    return line if len(line) <= most else line[: most - 3] + "..."


def _refuse_other_kinds(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
