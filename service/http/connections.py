"""Connections with limits: uvicorn has none on how slowly a request may arrive, or how long its headers may be.

`service.bento` names this class as uvicorn's HTTP protocol. A request must have arrived as a whole in
`ZOOSERVE_RECEIVE_S` seconds, its headers in at most 64 KiB, on one of at most `ZOOSERVE_MAX_CONNECTIONS` connections.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.problems import CONTENT_TYPE, Problem
from service.settings import read_settings

MAX_HEADERS = 64 * 1024
_SETTINGS = read_settings()


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receive_s = _SETTINGS.receive_s
        self._max_connections = _SETTINGS.max_connections
        self._header_bytes = 0
        self._in_headers = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_connections",
                f"{self._max_connections} connections are open already. Reuse yours, or try again shortly.",
            )
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            if self._timer is None:  # the first bytes of the next request on a connection that was kept
                self._start_clock()
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADERS + len(data):
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "too_large",
                    f"The request's headers exceed {MAX_HEADERS} bytes.",
                )
                return
        if not self.transport.is_closing():
            super().data_received(data)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        self._stop_clock()
        super().on_message_complete()

    def _start_clock(self) -> None:
        self._timer = self.loop.call_later(self._receive_s, self._too_slow)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            "too_slow",
            f"The request did not arrive within {self._receive_s:g} s. Send it faster, or in smaller parts.",
        )

    def _refuse(self, status: HTTPStatus, reason: str, detail: str) -> None:
        """Answer, whatever was received, and close: what else the client sends is not read."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            body = msgspec.json.encode(Problem(status.phrase, status, reason, detail))
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {CONTENT_TYPE.decode()}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
