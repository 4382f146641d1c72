"""File systems: this machine's, and those of `s3://`, `gs://` and other addresses. Reads images, writes results whole.

pyarrow has S3, Google's storage and Hadoop; other schemes come from fsspec, where its packages are installed. All take
their credentials from where they usually do (environment, configuration files, the machine's role).
"""

import functools
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import httpx
import pyarrow as pa
from pyarrow import fs

from service.errors import Reason, RequestError
from zoo.errors import ZooError, refused_by_system
from zoo.files import PART, replacing

_CHUNK = 1 << 20
_GOOGLE_S = 60
_ARROW = ("s3", "gs", "gcs", "hdfs", "viewfs")  # not Azure's: without credentials it ends the whole process


class UnreadableError(Exception):
    """An image could not be fetched; the message says why."""


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


@functools.cache
def _file_system(scheme: str, host: str) -> fs.FileSystem:
    root = f"{scheme}://{host}"
    if scheme in _ARROW:
        # Without credentials, or a network, Google's library would try for a quarter of an hour.
        patience = f"?retry_limit_seconds={_GOOGLE_S}" if scheme in ("gs", "gcs") else ""
        try:
            found, _ = fs.FileSystem.from_uri(root + patience)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{root}: {error}") from error
        return found
    import fsspec  # noqa: PLC0415 - only for schemes that pyarrow does not know

    try:
        handler, _ = fsspec.core.url_to_fs(root)
    except Exception as error:  # libraries of many kinds; some want arguments that an address cannot have
        raise StorageError(f"{root}: there is no file system for {scheme}:// here: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(handler))


def open_address(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address that is neither local nor `https://`, and the path in it.

    Raises:
        StorageError: nothing reads addresses of its scheme, or its server refuses.
    """
    scheme, _, path = address.partition("://")
    host, slash, rest = path.partition("/")
    return _file_system(scheme, host), f"{host.rpartition('@')[2]}{slash}{rest}".rstrip("/")


def as_fsspec(system: fs.FileSystem) -> Any:
    """Return a file system with fsspec's methods, of which one is for globs."""
    if isinstance(system, fs.PyFileSystem) and isinstance(system.handler, fs.FSSpecHandler):
        return system.handler.fs
    from fsspec.implementations.arrow import ArrowFSWrapper  # noqa: PLC0415 - for globs only

    return ArrowFSWrapper(system)


def fetch(address: str, limit: int, timeout_s: float) -> bytes:
    """Read an image.

    Args:
        address: a path, or an address with a scheme.
        limit: bytes; larger files are refused.
        timeout_s: seconds that an `https://` server has for all of it.

    Raises:
        RequestError: `too_large`.
        UnreadableError: it cannot be read.
    """
    try:
        if is_local(address):
            return _read_local(local_path(address), limit)
        if address.startswith(("http://", "https://")):
            return _download(address, limit, timeout_s)
        system, path = open_address(address)
        with system.open_input_file(path) as file:
            return _limited(file.read(limit + 1), limit)
    except httpx.TimeoutException:
        raise UnreadableError(f"no answer within {timeout_s:g} s") from None
    except (UnreadableError, RequestError, MemoryError):
        raise
    except Exception as error:  # file systems of fsspec raise what their libraries do
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableError(said or type(error).__name__) from None


def _read_local(path: str, limit: int) -> bytes:
    # A pipe without a writer would not be opened without O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a file")
        if status.st_size > limit:
            _refuse(limit)
        found = bytearray()  # files of /proc have the size 0, and one may grow
        while len(found) <= limit and (some := file.read(_CHUNK)):
            found += some
        return _limited(bytes(found), limit)


@functools.cache
def _client() -> httpx.Client:
    # Reads that do not end keep their connections: no others wait for one of theirs.
    return httpx.Client(follow_redirects=True, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64))


def _download(address: str, limit: int, timeout_s: float) -> bytes:
    end, found = monotonic() + timeout_s, bytearray()
    # Not compressed: a few bytes could become gigabytes before any limit is seen.
    with _client().stream("GET", address, timeout=timeout_s, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code != 200:
            raise UnreadableError(f"the server answers {response.status_code}")
        if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
            raise UnreadableError(f"the server answers compressed ({packed[:80]}), which was not asked for")
        for chunk in response.iter_raw():
            found += chunk
            if len(found) > limit:
                _refuse(limit)
            if monotonic() > end:
                raise UnreadableError(f"no answer within {timeout_s:g} s")
    return bytes(found)


def _limited(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        _refuse(limit)
    return data


def _refuse(limit: int) -> None:
    raise RequestError(Reason.TOO_LARGE, f"The image has more than {limit} bytes (ZOOSERVE_MAX_BODY_MB).")


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

    Raises:
        StorageError: it cannot be reached, or no results can be written there.
    """

    def __init__(self, address: str) -> None:
        if not address or address.startswith(("http://", "https://")):
            raise StorageError(
                f"{address!r} cannot hold results: name a folder, or an address such as s3://bucket/results"
            )
        self.address = address.rstrip("/")
        self.local = is_local(address)
        self._system: fs.FileSystem
        if self.local:
            self._path = str(Path(local_path(address)).absolute())
            self.address, self._system = self._path, fs.LocalFileSystem()
        else:
            self._system, self._path = open_address(address)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the complete files in it, or in a folder of it, sorted."""
        selector = fs.FileSelector(self._join(folder), allow_not_found=True)
        try:
            found = [info.base_name for info in self._system.get_file_info(selector) if info.is_file]
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
                    shutil.copyfileobj(spool, stream, _CHUNK)
                    stream.close()
            return
        with replacing(Path(self._join(name))) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def sweep(self) -> None:
        """Remove what killed processes left. Only while nobody else writes."""
        if self.local:
            for path in Path(self._path).glob(f"**/.*{PART}"):
                path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file; raises OSError if it is not there, or cannot be removed."""
        self._system.delete_file(self._join(name))

    def empty(self, folder: str) -> None:
        """Remove all files of a folder of it, which need not exist.

        Raises:
            StorageError: they cannot be removed.
        """
        try:
            self._system.delete_dir_contents(self._join(folder), missing_dir_ok=True)
        except OSError as error:
            raise StorageError(f"{self.address}/{folder}: {refused_by_system(error)}") from error

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path
