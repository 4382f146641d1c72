"""Downloads one file over HTTP: resumed after an interruption, checked against its sha256, with a progress bar.

The number of bytes read is always limited, to the file's size if the card has it.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from zoo.errors import SourceError
from zoo.files import sha256_of

_CREDENTIALS = re.compile(r"//[^/\s]*@")  # of an address: a name and a password
_CHUNK = 1 << 16
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
LARGEST_FILE = 4_000_000_000
"""Limit in bytes of a file whose size is not known: twice that of an ONNX file."""
_LARGEST_ANSWER = 64_000_000  # bytes of an answer that is kept in memory, such as an index's list of files
_LONGEST_WAIT = 30.0  # seconds
_MOST_FAILURES = 3  # a download is resumed until this number of attempts in a row brought no bytes


class TooLargeError(requests.RequestException):
    """An answer with more bytes than allowed."""


class _BoundedSession(requests.Session):
    """Reads at most `_LARGEST_ANSWER` bytes of an answer into memory. Callers must limit streamed answers."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        stream = options.get("stream", False)
        try:
            response = super().send(request, **(options | {"stream": True}))
        except requests.RequestException:
            raise
        except OSError as error:  # the file of certificates is missing, for example
            raise requests.RequestException(error) from error
        if not stream:
            with response:
                body = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > _LARGEST_ANSWER:
                        raise TooLargeError(f"the answer has more than {_LARGEST_ANSWER:,} bytes")
                response._content = bytes(body)  # what `response.content` returns
        return response


class _Retry(Retry):
    """Waits at most `_LONGEST_WAIT` for a busy server, even if its `Retry-After` is longer."""

    def get_retry_after(self, response: Any) -> float | None:
        try:
            after = super().get_retry_after(response)
        except InvalidHeader:
            return None
        return None if after is None else min(after, _LONGEST_WAIT)


class _Adapter(HTTPAdapter):
    """Does not read the bodies of redirects, which requests would read completely."""

    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        response = super().send(*arguments, **options)
        if response.is_redirect:
            response.close()
            response._content = b""
        return response


def http_session() -> requests.Session:
    """Return a session that retries busy servers and uses pip's certificates (`PIP_CERT`, `REQUESTS_CA_BUNDLE`)."""
    session = _BoundedSession()
    session.verify = os.environ.get("PIP_CERT") or True
    busy = (429, 500, 502, 503, 504)
    retry = _Retry(3, connect=1, read=0, backoff_factor=0.5, status_forcelist=busy, raise_on_status=False)
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(max_retries=retry))
    return session


def download(url: str, part: Path, digest: str, *, label: str, size: int | None = None, progress: bool = True) -> str:
    """Download `url` to `part`, resuming a partial download, and return its sha256.

    Args:
        url: `http://` or `https://`.
        part: path of the download; it is deleted if it turns out to be another file.
        digest: the expected sha256, or its beginning; "" accepts any.
        label: its name in the progress bar.
        size: the largest number of bytes to read, if known; else it is `LARGEST_FILE`. Without a digest, exactly so
            many are expected, or at least one.
        progress: whether to show a progress bar.

    Raises:
        SourceError: the server cannot be reached or has no such file, or the file's sha256 or size is another.
    """
    most = LARGEST_FILE if size is None else size
    # Without a hash, nobody would see that its beginning is of another file.
    if not digest or part.is_symlink() or not part.is_file() or part.stat().st_size > most:  # it cannot be resumed
        part.unlink(missing_ok=True)
    with http_session() as session:
        resumed = part.exists()
        _complete(session, url, part, label, most, progress)
        actual = sha256_of(part)
        if resumed and not actual.startswith(digest):  # the beginning may be of an older file: start again
            part.unlink()
            _complete(session, url, part, label, most, progress)
            actual = sha256_of(part)
    if not actual.startswith(digest):
        part.unlink()
        raise _another(url, f"its sha256 is {actual}, expected {digest}")
    length = _size(part)
    if not digest and (not length or size not in (None, length)):  # no hash would show that it was cut off
        part.unlink()
        raise _another(url, f"it has {length:,} bytes, expected {'more' if size is None else f'{size:,}'}")
    return actual


def _another(url: str, fault: str) -> SourceError:
    return SourceError(
        f"{without_credentials(url)} is not the expected file: {fault}. It was deleted. Try again; if the publisher "
        "has changed the file, look at it before you change the card"
    )


def without_credentials(text: str) -> str:
    """Return a message without the user names and passwords of the addresses in it, valid or not."""
    return _CREDENTIALS.sub("//", text)


def unreachable(url: str, error: requests.RequestException, remedy: str = "") -> SourceError:
    """Make the error for a `url` that did not answer. Its message has `remedy` and general advice."""
    proxy = " through the proxy that HTTPS_PROXY names" if isinstance(error, requests.exceptions.ProxyError) else ""
    return SourceError(
        f"cannot fetch {without_credentials(url)}{proxy}: {_reason(error)}. Where there is no route to it, {remedy}"
        "let `zooserve fetch NAME --to FOLDER` fill a mirror on a machine that has one, and name it with "
        'ZOOSERVE_MIRROR, or name another source in the card (`file = "..."` for a copy of your own, or `package` and '
        "`member`)"
    )


def _complete(session: requests.Session, url: str, part: Path, label: str, most: int, progress: bool) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            _continue(session, url, part, label, most, progress)
        except TooLargeError as error:
            part.unlink(missing_ok=True)
            raise SourceError(
                f"{without_credentials(url)} is not the expected file: {error}. It was deleted. If the publisher has "
                "changed the file, look at it before you change the card"
            ) from error
        except requests.RequestException as error:
            brought = _size(part) > before
            if not brought and not isinstance(error, requests.exceptions.ChunkedEncodingError):
                raise unreachable(url, error) from error
            failures = 0 if brought else failures + 1
            if failures == _MOST_FAILURES:
                raise SourceError(
                    f"the download of {without_credentials(url)} broke off after {_size(part)} bytes "
                    f"({_reason(error)}). Try again: it continues from there"
                ) from error
        else:
            return


def _continue(session: requests.Session, url: str, part: Path, label: str, most: int, progress: bool) -> None:
    """Append the missing bytes to `part`."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing is missing
            part.unlink()  # it is longer than the file, so it is not a part of it
            _continue(session, url, part, label, most, progress)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if total is not None and total > most:
            raise TooLargeError(f"it has {total:,} bytes, and may have {most:,}")
        with part.open("ab" if start else "wb") as file, _bar(label, start, total, progress) as advance:
            for chunk in response.iter_content(_CHUNK):
                start += len(chunk)
                if start > most:
                    raise TooLargeError(f"it has more than {most:,} bytes")
                file.write(chunk)
                advance(len(chunk))


@contextmanager
def _bar(label: str, start: int, total: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not progress:
        yield lambda _: None
    elif console.is_terminal:
        column = Column(no_wrap=True, overflow="ellipsis", max_width=32)
        name = TextColumn("{task.description}", markup=False, table_column=column)
        with Progress(name, BarColumn(16), DownloadColumn(), TransferSpeedColumn(), console=console) as bar:
            task = bar.add_task(label, total=total, completed=start)
            yield lambda size: bar.advance(task, size)
    else:
        begun = time.monotonic()
        print(f"fetching {label}" + (f" ({total / 1e6:.1f} MB)" if total else ""), file=sys.stderr)  # noqa: T201
        yield lambda _: None
        print(f"fetched {label} in {time.monotonic() - begun:.1f} s", file=sys.stderr)  # noqa: T201


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: requests.RequestException) -> str:
    """Return the innermost cause as a sentence: requests wraps urllib3, which wraps the operating system's error."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    cause: BaseException = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__ or next(iter(cause.args), None)) is not None:
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return without_credentials(str(cause.strerror if isinstance(cause, OSError) and cause.strerror else cause))
