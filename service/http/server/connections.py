"""Connections with limits: uvicorn has none on how slowly a request may arrive, or how long its headers may be.

`service.bento` names this class as uvicorn's HTTP protocol. A request must have arrived as a whole in
`ZOOSERVE_RECEIVE_S` seconds, its head in at most 64 KiB and 256 headers, on one of at most
`ZOOSERVE_MAX_CONNECTIONS` connections. An answer must be taken as fast as a request must arrive. The bodies of all
requests under way have at most `ZOOSERVE_MAX_BODIES_MB`.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import httptools

from service.http.problems import Problem
from service.http.server.heads import (
    MAX_FIELDS,
    MAX_HEADERS,
    bad,
    declared_length,
    long_head,
    refusal,
    too_long,
    with_path,
    wrong,
)
from service.http.server.refusals import answering, too_many_bodies, too_many_connections, written
from service.internals import HttpToolsProtocol
from service.limits import Bodies, Places
from service.settings import read_settings
from service.tls import Renewal, files_of

PROBES = frozenset({b"/livez", b"/readyz", b"/metrics"})
FOR_PROBES = 8  # connections
SPARE = 1024  # connections for a moment, where many are accepted at once
MAX_PIPELINED = 16  # requests that wait behind one that is being answered
_MAX_PIECES = 8192  # pieces of a body in what arrived at once: more are chunks of a few bytes
_PROBE_S = 1.0  # seconds in which the request of a probe's connection must have arrived
_NOT_OFFERED = frozenset({b"upgrade", b"http2-settings"})
_SETTINGS = read_settings()
_BODIES = Bodies(int(1e6 * max(_SETTINGS.max_bodies_mb, _SETTINGS.max_body_mb)))
_PLACES: Places["Connection"] = Places(_SETTINGS.max_connections, min(_SETTINGS.max_connections, SPARE))
_PROBE_PLACES: Places["Connection"] = Places(FOR_PROBES, SPARE)
_FILES = files_of(_SETTINGS)
_RENEWAL = Renewal(_FILES) if _FILES else None


class Connection(HttpToolsProtocol):
    """One connection of a client, which holds one of `ZOOSERVE_MAX_CONNECTIONS` places.

    When all are taken, a new connection gets the place of the one that has kept the server waiting longest: with
    nothing, half a request, an idle connection that was kept, or an answer that is not taken. It is closed, with 503
    where a request had begun. So whoever holds many connections open without using them shuts nobody out.

    A connection with a request that arrived and is not answered yet stays. Where all have one, a new connection may
    ask for the probes only (`/livez`, `/readyz`, `/metrics`), on one of a few places beyond the limit, for which the
    same rule holds. So the server does not look dead while it has as much work as it can take.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if _RENEWAL is not None and self.config.ssl is not None:
            _RENEWAL.renew(self.config.ssl)
        self._receive_s = _SETTINGS.receive_s
        self.timeout_keep_alive: float = _SETTINGS.keep_alive_s  # type: ignore[assignment]
        self._places: Places[Connection] | None = None
        self._owed = 0  # requests that arrived and are not answered
        self._held = 0  # bytes of their bodies
        self._unseen_bytes = 0  # that were fed since a part of a body came: a head's, or trailers'
        self._fed = self._most_head = 0  # bytes that came at once; at most so many are the head's
        self._pieces = self._trailers = self._trailer_bytes = 0
        self._in_head = True
        self._upgrade = False
        self._stopped: Problem | None = None  # what a callback of the parser has to say
        self._last_words: Problem | None = None  # behind the answers that are owed
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        for places in (_PLACES, _PROBE_PLACES):
            if places.take(self):
                self._places = places
                break
        else:
            self._refuse(too_many_connections())
            return
        if self._places is _PROBE_PLACES:
            self._receive_s = min(_PROBE_S, self._receive_s)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_send_clock()
        if self._places is not None:
            self._places.leave(self)
            self._places = None
        _BODIES.held -= self._held
        self._held = 0
        super().connection_lost(exc)

    def make_room(self) -> None:
        """Close: another connection has this one's place now."""
        self._places = None
        if self.transport.get_write_buffer_size():  # an answer that is not taken would keep it open
            self.transport.abort()
        elif self._timer is None:  # between two requests
            self.transport.close()
        else:
            self._refuse(too_many_connections())

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._last_words is not None:
            return
        begins = self._in_head and self._timer is None  # the next request on a connection that was kept
        if begins:
            self._start_clock()
        self._fed = size = len(data)
        self._most_head += size
        self._unseen_bytes += size
        if self._unseen_bytes > MAX_HEADERS + size:
            self._refuse(long_head())
            return
        self._unset_keepalive_if_required()
        self._pieces = 0
        self._feed(data)
        if begins and self._timer is not None:  # and it is not whole yet
            self._note()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as offer:
                data = self._without_upgrade() + data[offer.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Its bytes are no HTTP/1.1.")
                return

    def on_message_begin(self) -> None:
        if self._timer is None:  # it came in one piece with the end of the last one
            self._start_clock()
        self._most_head = self._fed
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self.headers
        if len(headers) >= MAX_FIELDS or not self._in_head:
            self._further_header(len(name) + len(value))
            return
        name = name.lower()  # as uvicorn does it; to call it costs as much as all this
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._most_head > MAX_HEADERS and (problem := too_long(self.url, self.headers)):
            self._stop(problem)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._stop(refusal(HTTPStatus.METHOD_NOT_ALLOWED, "bad_request", "CONNECT: this server is no proxy."))
            self._upgrade = True
            return
        if problem := wrong(self.parser.get_http_version(), self.headers):
            self._stop(problem)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(bad(f"More than {MAX_PIPELINED} requests were sent without waiting for an answer."))
        if not self.url.startswith(b"/"):
            self.url = with_path(self.url)
        app = self.app
        if self._places is _PROBE_PLACES and self.url not in PROBES:
            self.app = answering(too_many_connections())
        elif _BODIES.held and not _BODIES.room_for(declared_length(self.headers)):
            self.app = answering(too_many_bodies(_BODIES.limit))
        super().on_headers_complete()
        self.app = app
        self._in_head, self._trailers, self._trailer_bytes = False, 0, 0

    def on_body(self, body: bytes) -> None:
        self._unseen_bytes = 0  # what comes without any body is a head again: trailers, behind its last chunk
        self._pieces += 1
        if self._pieces > _MAX_PIECES:
            self._stop(bad("The body comes in chunks of a few bytes. Send larger ones."))
        if not self.cycle.response_complete:  # else uvicorn keeps none of it
            size = len(body)
            self._held += size
            _BODIES.held += size
            if _BODIES.held > _BODIES.limit:
                self._stop(too_many_bodies(_BODIES.limit))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade:  # not a message: its head is to be read again
            self._upgrade = False
            return
        self._in_head, self._unseen_bytes = True, 0
        self._stop_clock()
        self._owed += 1
        self._note()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._owed -= 1
        if self._owed <= 0:
            self._note()
            _BODIES.held -= self._held
            self._held = 0
        super().on_response_complete()
        if self._last_words is not None and self._owed <= 0:
            self._refuse(self._last_words)

    def pause_writing(self) -> None:
        self._stop_send_clock()
        self._send_timer = self.loop.call_later(self._receive_s, self.transport.abort)
        super().pause_writing()
        self._note()

    def resume_writing(self) -> None:
        self._stop_send_clock()
        super().resume_writing()
        self._note()

    def send_400_response(self, msg: str) -> None:
        problem, self._stopped = self._stopped, None
        self._refuse(problem or bad(f"The request cannot be read. {msg}"))

    def _note(self) -> None:
        """Keep account of who waits for whom."""
        if self._places is not None:
            if self._owed > 0 and self._send_timer is None:
                self._places.works(self)
            else:
                self._places.waits(self)

    def _further_header(self, size: int) -> None:
        """Refuse a header too many, or ignore a trailer: uvicorn would take it for a header of the request."""
        self._trailers += 1
        self._trailer_bytes += size
        if self._in_head or self._trailers > MAX_FIELDS or self._trailer_bytes > MAX_HEADERS:
            self._stop(long_head())

    def _stop(self, problem: Problem) -> None:
        """End the parser, in one of its callbacks."""
        self._stopped = problem
        raise ValueError(problem.detail)

    def _without_upgrade(self) -> bytes:
        """Decline an offer to speak another protocol (RFC 9110, 7.8): the head to read again, without the offer.

        The parser takes what follows such a head for the other protocol, and would lose the body.
        """
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] not in _NOT_OFFERED]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return b"".join([line, *headers, b"\r\n"])

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

    def _too_slow(self) -> None:
        self._timer = None
        if self._owed > 0:  # nothing need be read while an earlier request is being answered
            self._start_clock()
            return
        detail = f"The request did not arrive within {self._receive_s:g} s. Send it faster, or in smaller parts."
        self._refuse(refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", detail))

    def _refuse(self, problem: Problem) -> None:
        """Answer, whatever was received, and close: what else the client sends is not read."""
        if self.transport.is_closing():
            return
        if self._owed > 0:
            self._last_words = problem
            return
        if self.cycle is None or not self.cycle.response_started or (self.cycle.response_complete and self._in_head):
            head, body = written(problem, self.headers or ())
            lines = b"".join(b"%b: %b\r\n" % header for header in head)
            line = f"HTTP/1.1 {problem.status} {problem.title}\r\n".encode()
            self.transport.write(line + lines + b"\r\n" + body)
        self.transport.close()
