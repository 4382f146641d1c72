"""The parts of a call that do not depend on the transport: its request, its deadline and retries, its response.

`Client` and `AsyncClient` share them; they differ only in how they wait.
"""

import json
import os
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, Literal
from urllib.parse import quote

import httpx

from zooserve_client.errors import DeadlineError, UnreachableError, ZooserveError
from zooserve_client.results import Result

Task = Literal["classify", "embed", "detect", "segment", "pose", "obb"]
Format = Literal["png", "jpeg"]
Priority = Literal["high", "normal", "low"]
Option = str | int | float | bool | None

_URL = "http://localhost:3000"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=256)
AHEAD = 4  # at most this many times `concurrency` images are started while the first of them has no answer
_AGAIN = frozenset({429, 502, 503})  # too busy, a proxy that cannot reach the server, not ready
_CREDENTIALS = re.compile(r"//[^/\s]*@")  # of an address
_FOREVER = 1e9  # seconds; sockets take no infinite timeout
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds, if the server sends no `Retry-After`


@dataclass(frozen=True)
class Ask:
    """A request: a POST if it has content, an image, else a GET."""

    path: str
    content: bytes | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A successful response."""

    body: bytes
    request_id: str
    timing: str

    def json(self) -> Any:
        """Decode the body.

        Raises:
            ZooserveError: it is not JSON, so the server is probably not zooserve.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ZooserveError(
                f"expected JSON, the answer begins with {self.body[:40]!r}: is the server zooserve?"
            ) from error

    def result(self) -> Result:
        """Read the answer to an image; raises as `json`."""
        answer = self.json()
        try:
            return Result.read(answer, self.request_id, _milliseconds(self.timing))
        except (KeyError, TypeError) as error:
            raise ZooserveError(
                f"the answer begins with {self.body[:40]!r} and is not a result: is the server zooserve?"
            ) from error


class Attempts:
    """The deadline and the retries of one call.

    Args:
        deadline: seconds for the whole call, pauses included; infinity: none.
        retries: the largest number of retries.
    """

    def __init__(self, deadline: float, retries: int) -> None:
        if not deadline > 0:
            raise ValueError(f"deadline={deadline}: expected seconds above 0")
        self._deadline = deadline
        self._end = monotonic() + min(deadline, _FOREVER)
        self._retries = retries
        self._tried = 0

    def left(self) -> float:
        """Return the seconds until the deadline; raises `DeadlineError` if it has passed."""
        left = self._end - monotonic()
        if left <= 0:
            raise self.too_late()
        return left

    def too_late(self) -> DeadlineError:
        """Make the error for a passed deadline."""
        return DeadlineError(f"no answer within {self._deadline:g} s", "deadline")

    def pause(self, error: ZooserveError) -> float:
        """Return the seconds to wait before a retry; raises the error if a retry makes no sense.

        The pause is that of `Retry-After` plus a random part of up to a quarter, so that clients do not all retry
        together. Without `Retry-After` it doubles each time, and half of it is random.
        """
        self._tried += 1
        if self._tried > self._retries or not (isinstance(error, UnreachableError) or error.status in _AGAIN):
            raise error
        if error.retry_after is None:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self._tried - 1)) * random.uniform(0.5, 1)  # noqa: S311
        else:
            pause = error.retry_after * random.uniform(1, 1.25)  # noqa: S311
        if monotonic() + pause >= self._end:
            raise error
        return pause


class Caller:
    """Address, key, deadline and retries of a client; see `Client`."""

    def __init__(self, url: str | None, api_key: str | None, deadline: float, retries: int) -> None:
        self.url = (url or os.environ.get("ZOOSERVE_URL") or _URL).strip().rstrip("/")
        self._shown = _CREDENTIALS.sub("//", self.url)  # errors land in logs, where passwords should not
        try:
            parts = httpx.URL(self.url)
        except httpx.InvalidURL:
            parts = httpx.URL()
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise ValueError(f"url={self._shown}: expected http://HOST:PORT or https://HOST:PORT")
        self._key = (api_key or os.environ.get("ZOOSERVE_API_KEY") or "").strip()  # a file's ends with a line break
        if not self._key.isprintable():
            raise ValueError("the API key has a line break or another control character in it")
        self._deadline, self._retries = deadline, retries

    def attempts(self, deadline: float | None) -> Attempts:
        """Start the deadline of a call."""
        return Attempts(self._deadline if deadline is None else deadline, self._retries)

    def request(self, http: httpx.Client | httpx.AsyncClient, ask: Ask, left: float) -> httpx.Request:
        """Build a request with a timeout of `left` seconds."""
        headers = {**ask.headers, "x-request-timeout-ms": str(max(1, round(1000 * left)))}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        method = "GET" if ask.content is None else "POST"
        url, sent = self.url + quote(ask.path), httpx.Headers(headers, encoding="utf-8")
        return http.build_request(method, url, content=ask.content, params=ask.params, headers=sent, timeout=left)

    def unreachable(self, error: httpx.RequestError) -> UnreachableError:
        """Make the error for a failed connection."""
        return UnreachableError(f"{self._shown}: {error or type(error).__name__}", "unreachable")


def ask_for(
    task: str,
    image: bytes,
    *,
    model: str | None = None,
    version: str | None = None,
    priority: Priority | None = None,
    drawn: Format | None = None,
    options: Mapping[str, Option] | None = None,
) -> Ask:
    """Make the request for one image, of a task or, `pipelines/NAME`, of a pipeline. `drawn`: an image is wanted."""
    given = {"model": model, "version": version, **(options or {})}
    headers = {"accept": f"image/{drawn}" if drawn else "application/json", "content-type": "application/octet-stream"}
    if priority:
        headers["x-request-priority"] = priority
    params = {name: _word(value) for name, value in given.items() if value is not None}
    return Ask(f"/v1/{task}", image, params, headers)


def read_reply(response: httpx.Response, body: bytes) -> Reply:
    """Read a response.

    Raises:
        ZooserveError: the server refused the request or failed.
    """
    request_id = response.headers.get("x-request-id", "")
    if response.is_success:
        return Reply(body, request_id, response.headers.get("server-timing", ""))
    try:
        problem = json.loads(body)
        reason, detail = str(problem["reason"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        reason, detail = "", body[:200].decode("utf-8", "replace").strip() or response.reason_phrase
    kind = DeadlineError if response.status_code == httpx.codes.GATEWAY_TIMEOUT else ZooserveError
    raise kind(detail, reason, response.status_code, _retry_after(response.headers.get("retry-after")), request_id)


def _word(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _retry_after(given: str | None) -> float | None:
    """Seconds from now, of `Retry-After`: a number of them or a date (RFC 9110, 10.2.3)."""
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _milliseconds(timing: str) -> dict[str, float]:
    """The stages of a `Server-Timing` header."""
    stages = {}
    for stage in timing.split(","):
        name, *parts = (part.strip() for part in stage.split(";"))
        duration = next((part.removeprefix("dur=").strip('"') for part in parts if part.startswith("dur=")), "")
        with suppress(ValueError):  # a proxy's own, which may hold anything
            stages[name] = float(duration)
    return stages
