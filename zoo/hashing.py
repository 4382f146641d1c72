"""The sha256 of a file: what sources are pinned by and what the store verifies."""

import hashlib
from pathlib import Path

from zoo.files import open_regular


def sha256_of(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
