"""Reads images: files, `https://` and what `scoring.storage` opens, none of them longer than it may be or for ever."""

import functools
import os
import stat
from time import monotonic

import httpx

from scoring.storage import CHUNK, is_local, local_path, open_address
from service.errors import Reason, RequestError


class UnreadableError(Exception):
    """An image could not be fetched; the message says why."""


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
        while len(found) <= limit and (some := file.read(CHUNK)):
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
