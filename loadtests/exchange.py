"""One HTTP/1.1 request and its answer, with as little work of the client's as possible. `client` makes load of them.

httptools parses the answers: aiohttp's client took .07 ms longer over each, which would be charged to the server.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, cast

from httptools import HttpParserError, HttpResponseParser

from loadtests.target import Target


@dataclass(frozen=True)
class Request:
    """One HTTP request. `Host`, `Content-Length` and the server's path prefix and headers are added."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, server: Target) -> bytes:
        """Return the request as it goes over the wire."""
        length = {"Content-Length": str(len(self.body))}
        headers = {"Host": server.authority, **server.headers, **self.headers, **length}
        lines = [
            f"{self.method} {server.path(self.path)} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Response(NamedTuple):
    """An answer: `headers` have lower-case names, `finished` is the `perf_counter()` of its last byte's arrival."""

    status: int
    headers: dict[str, str]
    body: bytes
    finished: float


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    @staticmethod
    async def open(server: Target, timeout: float) -> "Connection":
        """Connect.

        Raises:
            OSError: nobody listens, (ssl.SSLError) TLS failed, or (TimeoutError) nobody answered in time.
        """
        loop = asyncio.get_running_loop()
        tls = server.ssl_context()
        name = server.host if tls else None
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(
                Connection, server.ip or server.host, server.port, ssl=tls, server_hostname=name
            )
        return connection

    async def exchange(self, request: bytes, timeout: float) -> Response:
        """Send an encoded request and wait for its answer.

        Raises:
            OSError: the connection broke, or (TimeoutError) no answer came in time; the connection is closed.
        """
        if self._transport is None or not self.usable:
            raise ConnectionResetError("the connection is closed")
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self._fail, TimeoutError(f"no answer within {timeout} s"))
        self._transport.write(request)
        try:
            return await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Close at once. Idempotent."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._fail(ConnectionResetError(f"the server closed the connection: {exc or 'before it had answered'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(ConnectionResetError(f"the answer is not HTTP/1.1: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        finished = perf_counter()
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        response = Response(status, self._headers, b"".join(self._body), finished)
        self._headers, self._body = {}, []
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)

    def _fail(self, error: OSError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


async def fetch(server: Target, request: Request, timeout: float = 10.0) -> Response:
    """Send one request on a connection of its own.

    Raises:
        OSError: nobody listens, the connection broke, or (TimeoutError) no answer came in time.
    """
    connection = await Connection.open(server, timeout)
    try:
        return await connection.exchange(request.encode(server), timeout)
    finally:
        connection.close()
