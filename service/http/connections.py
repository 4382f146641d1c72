"""Connections with limits: uvicorn has none on how slowly a request may arrive, or how long its headers may be.

`service.bento` names this class as uvicorn's HTTP protocol. A request must have arrived as a whole in
`ZOOSERVE_RECEIVE_S` seconds, its headers in at most 64 KiB, on one of at most `ZOOSERVE_MAX_CONNECTIONS` connections;
a few more are there for the probes, so that a crowd of others does not make the service look dead. An answer must be
taken as fast as a request must arrive.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.problems import CONTENT_TYPE, Problem
from service.settings import read_settings

MAX_HEADERS = 64 * 1024
PROBES = frozenset({b"/livez", b"/readyz", b"/metrics"})
FOR_PROBES = 8  # connections
_PROBE_S = 1.0  # seconds in which the request of one of those must have arrived
_SETTINGS = read_settings()


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receive_s = _SETTINGS.receive_s
        self._max_connections = _SETTINGS.max_connections
        self._header_bytes = 0
        self._in_headers = True
        self._only_probes = False
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            self._only_probes, self._receive_s = True, min(_PROBE_S, self._receive_s)
            if len(self.connections) > self._max_connections + FOR_PROBES:
                self._refuse(self._full_house())
                return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_send_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers and self._timer is None:  # the next request on a connection that was kept begins
            self._start_clock()
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADERS + len(data):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(_problem(status, "too_large", f"The request's headers exceed {MAX_HEADERS} bytes."))
            return
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        if self._timer is None:  # it came in one piece with the end of the last one
            self._start_clock()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._only_probes and self.url not in PROBES:
            self.app = self._full
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0  # what comes without any body are headers again: trailers, behind its last chunk
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        self._stop_clock()
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._stop_send_clock()
        self._send_timer = self.loop.call_later(self._receive_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_send_clock()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_problem(HTTPStatus.BAD_REQUEST, "bad_request", f"{msg} Its bytes are no HTTP/1.1."))

    def _start_clock(self) -> None:
        self._timer = self.loop.call_later(self._receive_s, self._too_slow)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_send_clock(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    async def _full(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer instead of the app."""
        body = msgspec.json.encode(problem := self._full_house())
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _full_house(self) -> Problem:
        return _problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too_many_connections",
            f"{self._max_connections} connections are open already. Reuse yours, or try again shortly.",
        )

    def _too_slow(self) -> None:
        self._timer = None
        if self.pipeline:  # nothing is read while an earlier request is being answered
            self._start_clock()
            return
        self._refuse(
            _problem(
                HTTPStatus.REQUEST_TIMEOUT,
                "too_slow",
                f"The request did not arrive within {self._receive_s:g} s. Send it faster, or in smaller parts.",
            )
        )

    def _refuse(self, problem: Problem) -> None:
        """Answer, whatever was received, and close: what else the client sends is not read."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            body = msgspec.json.encode(problem)
            head = (
                f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {CONTENT_TYPE.decode()}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _problem(status: HTTPStatus, reason: str, detail: str) -> Problem:
    return Problem(status.phrase, status, reason, detail)
