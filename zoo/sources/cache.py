"""The cache of fetched files: `<root>/<sha256>/<file name>`, so that the path has the expected hash.

It may be copied to a machine without a network. Files appear by an atomic rename; several processes may share it.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from zoo.errors import SourceError, refused_by_system
from zoo.files import read_regular, replacing, sha256_of
from zoo.home import NOWHERE, cache_folder
from zoo.model_card import Source


class Cache:
    """The cache under `$ZOOSERVE_CACHE`, or in the user's cache folder.

    Raises:
        SourceError: there is neither.
    """

    def __init__(self) -> None:
        self.root = Path(os.environ.get("ZOOSERVE_CACHE") or cache_folder())
        if self.root == NOWHERE:
            raise SourceError("this user has no home for what is fetched: name a folder with ZOOSERVE_CACHE")

    def find(self, source: Source) -> Path | None:
        """Return the file of `source` if it is in the cache and intact; it is hashed every time."""
        if not source.digest:  # not known before the first download
            return None
        for path in sorted(self.root.glob(f"{source.digest}*/*")):
            try:
                if path.is_file() and sha256_of(path) == path.parent.name:
                    return path
            except OSError:  # another user's, for example: it is fetched again
                continue
        return None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say of an error of the system, such as a full disk, that the cache is concerned, and how to have another."""
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"{refused_by_system(error)}: what is fetched is kept in {self.root}. See that it can be written and "
                "has room, or name another folder with ZOOSERVE_CACHE"
            ) from error

    def add(self, part: Path, digest: str, name: str) -> Path:
        """Move a complete file with the sha256 `digest` into the cache, and return its path there.

        Of a name that is too long for file systems, the end is taken.
        """
        path = self.root / digest / name.encode()[-200:].decode(errors="ignore")
        path.parent.mkdir(parents=True, exist_ok=True)
        return part.replace(path)

    def answer(self, path: str) -> bytes | None:
        """Return a small answer that was kept under `path`, such as what a hub said; None if there is none."""
        try:
            return read_regular(self.root / path)
        except OSError:  # it is asked again
            return None

    def keep(self, path: str, answer: bytes) -> None:
        """Keep a small answer under `path`, relative to the cache.

        Raises:
            SourceError: the cache cannot be written.
        """
        with self.writing(), replacing(self.root / path) as file:
            file.write(answer)

    def part(self, origin: str) -> Path:
        """Return the path of a partial download of `origin`. An interrupted one stays, and the next run resumes it."""
        folder = self.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / hashlib.sha256(origin.encode()).hexdigest()[:32]

    def lock(self, origin: str) -> FileLock:
        """Return a lock between processes: one fetches from `origin`, the others wait."""
        return FileLock(self.part(origin).with_suffix(".lock"))
