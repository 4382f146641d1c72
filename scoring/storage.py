"""File systems: this machine's, and those of `s3://`, `gs://` and other addresses. Writes results whole.

pyarrow has S3 and Google's storage; other schemes come from fsspec, where its packages are installed. All take
their credentials from where they usually do (environment, configuration files, the machine's role).
"""

import functools
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from zoo.errors import ZooError, refused_by_system
from zoo.files import PART, UNFINISHED, replacing

CHUNK = 1 << 20
"""Bytes that are read at once."""
_GOOGLE_S = 60
_ARROW = ("s3", "gs", "gcs")  # not Azure's: without credentials it ends the whole process


class StorageError(ZooError):
    """A folder, a list or a result cannot be read or written; the message says what to do."""


def is_local(address: str) -> bool:
    """Return whether an address is a path of this machine, or `file://`."""
    return "://" not in address or address.startswith("file://")


def local_path(address: str) -> str:
    """Return the path of a local address; bytes that are not UTF-8 are escaped in a `file://` address.

    Raises:
        StorageError: it is none.
    """
    try:
        return os.fsdecode(_unquoted(address)) if address.startswith("file://") else address
    except ValueError as error:
        raise StorageError(f"{address}: {error}") from error


def local_address(path: str) -> str:
    """Return the address of an absolute path: itself, or a `file://` address where it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def public_address(address: str) -> str:
    """Return an address as it may be shown and kept: without its user and password, and without a token.

    Of `http://` and `https://`, whatever follows the path may be a token. The user `anonymous` stays: with it, public
    buckets are read.
    """
    if is_local(address):
        return address
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    return f"{scheme}://{'anonymous@' if user == 'anonymous' else ''}{host}{slash}{path}"


@functools.cache
def _file_system(scheme: str, host: str) -> fs.FileSystem:
    root = f"{scheme}://{host}"
    public = public_address(root)
    if scheme in _ARROW:
        # Without credentials, or a network, Google's library would try for a quarter of an hour.
        patience = f"?retry_limit_seconds={_GOOGLE_S}" if scheme in ("gs", "gcs") else ""
        try:
            found, _ = fs.FileSystem.from_uri(root + patience)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{public}: {str(error).replace(root, public)}") from error
        return found
    import fsspec  # noqa: PLC0415 - only for schemes that pyarrow does not know

    try:
        handler, path = fsspec.core.url_to_fs(root)
    except Exception as error:  # libraries of many kinds; some want arguments that an address cannot have
        said = str(error).replace(root, public)
        raise StorageError(f"{public}: there is no file system for {scheme}:// here: {said}") from error
    if path.strip("/") != host:  # of ftp://, for example, whose addresses name a server
        raise StorageError(
            f"{public}: only schemes are read whose addresses begin with a bucket, {scheme}://bucket/path"
        )
    return fs.PyFileSystem(fs.FSSpecHandler(handler))


def open_address(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address that is neither local nor `https://`, and the path in it.

    Raises:
        StorageError: nothing reads addresses of its scheme, or its server refuses.
    """
    scheme, _, path = address.partition("://")
    host, slash, rest = path.partition("/")
    return _file_system(scheme, host), f"{host.rpartition('@')[2]}{slash}{rest}".rstrip("/")


def contents(system: fs.FileSystem, folder: str, *, missing_ok: bool = False) -> list[fs.FileInfo]:
    """Return what is in a folder.

    Args:
        system: of the folder.
        folder: the path of the folder.
        missing_ok: whether a folder that is not there is an empty one.

    Raises:
        OSError: it cannot be listed.
    """
    if not (isinstance(system, fs.PyFileSystem) and isinstance(system.handler, fs.FSSpecHandler)):
        return system.get_file_info(fs.FileSelector(folder, allow_not_found=missing_ok))  # type: ignore[no-any-return]
    try:
        # pyarrow would call `isdir` and `find`, which take every error for an empty folder.
        found = system.handler.fs.ls(folder, detail=True)
    except FileNotFoundError:
        if missing_ok:
            return []
        raise
    except OSError:
        raise
    except Exception as error:  # what their libraries raise
        raise OSError(str(error) or type(error).__name__) from error
    kinds = {"file": fs.FileType.File, "directory": fs.FileType.Directory}
    entries = [fs.FileInfo(one["name"].strip("/"), kinds.get(one["type"], fs.FileType.Unknown)) for one in found]
    return [entry for entry in entries if entry.path != folder.strip("/")]  # some list the folder itself


def _unquoted(address: str) -> bytes:
    return os.fsencode(unquote(urlsplit(address).path, errors="surrogateescape"))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, which only the main thread gets, wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)


class Folder:
    """A folder of results, local or remote. Files appear whole or not at all.

    Args:
        address: of the folder.

    Attributes:
        local: whether it is one of this machine.
        full: its address, which opens it.
        address: the same, as it may be shown; see `public_address`.
        allowed: is called before a file is written, and raises StorageError where that must not be any more.

    Raises:
        StorageError: it cannot be reached, or no results can be written there.
    """

    def __init__(self, address: str) -> None:
        if not address or address.startswith(("http://", "https://")):
            raise StorageError(
                f"{public_address(address)!r} cannot hold results: name a folder, or an address such as s3://bucket/results"
            )
        self.full = address.rstrip("/")
        self.local = is_local(address)
        self._system: fs.FileSystem
        if self.local:
            self._path = str(Path(local_path(address)).absolute())
            self.full, self._system = self._path, fs.LocalFileSystem()
        else:
            self._system, self._path = open_address(address)
        self.address = public_address(self.full)
        self.allowed: Callable[[], None] = lambda: None

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the complete files in it, or in a folder of it, sorted; none where it is not there.

        Raises:
            StorageError: it cannot be listed.
        """
        try:
            found = [
                one.base_name for one in contents(self._system, self._join(folder), missing_ok=True) if one.is_file
            ]
        except OSError as error:
            raise StorageError(f"{self.address}: {refused_by_system(error)}") from error
        except UnicodeDecodeError as error:
            raise StorageError(f"{self.address} has a file whose name is not UTF-8: name another folder") from error
        return sorted(name for name in found if not name.startswith("."))

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading at any position."""
        return self._system.open_input_file(self._join(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file that appears when the block ends, in the place of one of that name, or not at all.

        Raises:
            StorageError: it cannot be written: the disk is full, for example.
        """
        self.allowed()
        try:
            with self._writing(name) as file:
                yield file
        except OSError as error:
            raise StorageError(
                f"{self.address}/{name} cannot be written: {error.strerror or error}. When it can be, the same command "
                "continues."
            ) from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        if not self.local:
            # An object appears when its upload is complete. Collected here first: an error leaves nothing behind.
            with tempfile.TemporaryFile() as spool:
                yield spool
                spool.seek(0)
                with _uninterrupted():  # else pyarrow would complete half an upload, as if it were all
                    stream: Any = self._system.open_output_stream(self._join(name))
                    shutil.copyfileobj(spool, stream, CHUNK)
                    stream.close()
            return
        with replacing(Path(self._join(name))) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def sweep(self, *folders: str) -> None:
        """Remove what killed processes left in it and in folders of it. Only while nobody else writes these."""
        if self.local:
            for path in (path for folder in ("", *folders) for path in Path(self._join(folder)).glob(f".*{PART}")):
                if UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file; raises OSError if it is not there, or cannot be removed."""
        self._system.delete_file(self._join(name))

    def empty(self, folder: str) -> None:
        """Remove the complete files of a folder of it, which need not exist.

        Raises:
            StorageError: they cannot be removed.
        """
        try:
            for name in self.names(folder):
                self.remove(f"{folder}/{name}")
        except OSError as error:
            raise StorageError(f"{self.address}/{folder}: {refused_by_system(error)}") from error

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path
