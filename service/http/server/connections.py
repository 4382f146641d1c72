"""Connections with limits: uvicorn limits neither the time in which a request arrives nor the size of its headers.

`service.bento` makes `Connection` uvicorn's HTTP protocol. A request must arrive completely within
`ZOOSERVE_RECEIVE_S` seconds, with at most 64 KiB and 256 headers. The same time limits a client that does not read
its answer. At most `ZOOSERVE_MAX_CONNECTIONS` connections are open, and the bodies of all current requests have
together at most `ZOOSERVE_MAX_BODIES_MB`, as have the answers that clients do not read.
"""

import asyncio
import logging
from http import HTTPStatus

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from service.http.problems import Problem, refusal
from service.http.server.heads import (
    MAX_FIELDS,
    MAX_HEADERS,
    bad,
    check_head,
    declared_length,
    long_head,
    too_long,
    with_path,
    without_upgrade,
)
from service.http.server.refusals import answering, counted, too_many_bodies, too_many_connections, written
from service.internals import HttpProtocol, rest_of_body
from service.limits import FOR_PROBES, SPARE, Bodies, HeldBodies, Places, Unread
from service.settings import read_settings
from service.timers import Alarm
from service.tls import Renewal, files_of

PROBES = frozenset({b"/livez", b"/readyz", b"/metrics"})
MAX_PIPELINED = 16  # requests that wait on a connection while an earlier one is answered
_MAX_PIECES = 8192  # chunks of a body in one read from the socket; more would be chunks of a few bytes
_PROBE_S = 1.0  # seconds in which the request of a probe's connection must have arrived
_SETTINGS = read_settings()
_MAX_BODY = _SETTINGS.max_body_bytes  # the app refuses what is larger
_BODIES = Bodies(int(1e6 * max(_SETTINGS.max_bodies_mb, _SETTINGS.max_body_mb)))
_UNREAD = Unread(_BODIES.limit)
_PLACES: Places["Connection"] = Places(_SETTINGS.max_connections, min(_SETTINGS.max_connections, SPARE))
_PROBE_PLACES: Places["Connection"] = Places(FOR_PROBES, SPARE)
_RENEWAL = Renewal(_files) if (_files := files_of(_SETTINGS)) else None


class Connection(HttpProtocol):
    """A client's connection, which takes one of `ZOOSERVE_MAX_CONNECTIONS` places.

    When all are taken, a new connection replaces the one for whose client the server has waited longest: for a first
    request, for the rest of a request, for the next request, or for the client to read its answer. The old one is
    closed, with a 503 if a request had begun. So a client with many unused connections does not block others.

    A connection whose request is complete and not yet answered is never closed for another. If all connections have
    such a request, a new one can only call the probes (`/livez`, `/readyz`, `/metrics`), on one of a few extra places
    with the same rules. So probes are answered even under full load.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if _RENEWAL is not None and self.config.ssl is not None:
            _RENEWAL.renew(self.config.ssl)
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)  # else its line is made
        self._receive_s = self.linger_s = _SETTINGS.receive_s
        self.timeout_keep_alive: float = _SETTINGS.keep_alive_s  # type: ignore[assignment]
        self._places: Places[Connection] | None = None
        self._owed = 0  # requests that are complete and not yet answered
        self._held = HeldBodies(_BODIES)
        self._unseen_bytes = 0  # received since the last part of a body; they belong to a head or to trailers
        self._fed = self._most_head = 0  # bytes of the last read; an upper bound of the head's size
        self._pieces = self._trailers = self._trailer_bytes = 0
        self._in_head = True
        self._begun = self._upgrade = self._counted = False
        self._stopped: Problem | None = None  # why a callback stopped the parser
        self._final: Problem | None = None  # to be sent after the answers to complete requests
        self._clock = Alarm(self.loop, self._too_slow)  # runs while a request arrives
        self._sending = Alarm(self.loop, self._abort)  # is set while the client does not read

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
        self._clock.set(self._receive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.end()
        self._sending.end()
        _UNREAD.note(self._abort, 0)
        if self._places is not None:
            self._places.leave(self)
            self._places = None
        self._held.end()
        super().connection_lost(exc)

    def give_up_place(self) -> None:
        """Close this connection: another one takes its place."""
        self._places = None
        if self.parted or self.transport.get_write_buffer_size():  # `close` would wait for the client
            self.transport.abort()
        elif not self._clock.is_set:  # between two requests
            self.transport.close()
        else:
            self._refuse(too_many_connections())

    def data_received(self, data: bytes) -> None:
        if self.parted or self.transport.is_closing() or self._final is not None:
            return
        begins = self._in_head and not self._clock.is_set  # another request on the same connection
        if begins:
            self._clock.set(self._receive_s)
        self._fed = size = len(data)
        self._most_head += size
        self._unseen_bytes += size
        if self._unseen_bytes > MAX_HEADERS + size:
            self._refuse(long_head())
            return
        self._unset_keepalive_if_required()
        self._pieces = 0
        self._feed(data)
        if begins and self._clock.is_set:  # the request is not complete yet
            self._note_state()
        elif self._in_head and self._owed <= 0 and not self._clock.is_set:  # it was answered before its end
            self._idle.set(self.timeout_keep_alive)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as offer:
                data = self._without_upgrade() + data[offer.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("It is not HTTP/1.1.")
                return

    def on_message_begin(self) -> None:
        self._clock.set(self._receive_s)  # anew: the connection was perhaps opened long before
        self._begun = True
        self._most_head = self._fed
        self._counted = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self.headers
        if len(headers) >= MAX_FIELDS or not self._in_head:
            self._further_header(len(name) + len(value))
            return
        name = name.lower()  # a copy of uvicorn's method, because a call would double the time
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._most_head > MAX_HEADERS and (problem := too_long(self.url, self.headers)):
            self._stop(problem)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                detail = "CONNECT: this server is not a proxy."
                self._stop(refusal(HTTPStatus.METHOD_NOT_ALLOWED, "bad_request", detail))
            self._upgrade = True
            return
        if problem := check_head(self.parser.get_http_version(), self.headers):
            self._stop(problem)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(bad(f"More than {MAX_PIPELINED} requests were sent without waiting for an answer."))
        if not self.url.startswith(b"/"):
            self.url = with_path(self.url)
        app = self.app
        if self._places is _PROBE_PLACES and self.url not in PROBES:
            self.app = answering(self._count(too_many_connections()))
        elif _BODIES.held and not _BODIES.fits(min(declared_length(self.headers), _MAX_BODY)):
            self.app = answering(self._count(too_many_bodies(_BODIES.limit)))
        super().on_headers_complete()
        self._held.begin()
        self.app = app
        self._in_head, self._trailers, self._trailer_bytes = False, 0, 0

    def on_body(self, body: bytes) -> None:
        self._unseen_bytes = 0
        self._pieces += 1
        if self._pieces > _MAX_PIECES:
            self._stop(bad("The body comes in chunks of a few bytes. Send larger ones."))
        if not self.cycle.response_complete:  # otherwise uvicorn discards the body
            self._held.add(len(body))
            if _BODIES.held > _BODIES.limit:
                self._stop(too_many_bodies(_BODIES.limit))
            body = rest_of_body(self.cycle, body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade:  # the head is parsed again, without its Upgrade header
            self._upgrade = False
            return
        self._in_head, self._begun, self._unseen_bytes = True, False, 0
        self._clock.clear()
        self._owed += 1
        self._note_state()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._owed -= 1
        self._held.answered()
        if self._owed <= 0:
            self._note_state()
        super().on_response_complete()
        if self._final is not None and self._owed <= 0:
            self._refuse(self._final)

    def pause_writing(self) -> None:
        self._sending.set(self._receive_s)
        _UNREAD.note(self._abort, self.transport.get_write_buffer_size())
        super().pause_writing()
        self._note_state()

    def resume_writing(self) -> None:
        self._sending.clear()
        _UNREAD.note(self._abort, 0)
        super().resume_writing()
        self._note_state()

    def send_400_response(self, msg: str) -> None:
        problem, self._stopped = self._stopped, None
        self._refuse(problem or bad(f"The request cannot be read. {msg}"))

    def _count(self, problem: Problem) -> Problem:
        """Count the refusal of a request once: one that came with its body is refused twice."""
        if not self._counted:
            self._counted = True
            counted(problem)
        return problem

    def _note_state(self) -> None:
        """Record whether the server waits for this client or works on its request."""
        if self._places is not None:
            if self._owed > 0 and not self._sending.is_set:
                self._places.works(self)
            else:
                self._places.waits(self)

    def _further_header(self, size: int) -> None:
        """Refuse a header above the limit, or ignore a trailer, which uvicorn would mix with the request's headers."""
        self._trailers += 1
        self._trailer_bytes += size
        if self._in_head or self._trailers > MAX_FIELDS or self._trailer_bytes > MAX_HEADERS:
            self._stop(long_head())

    def _stop(self, problem: Problem) -> None:
        """Stop the parser from within one of its callbacks."""
        self._stopped = problem
        raise ValueError(problem.detail)

    def _without_upgrade(self) -> bytes:
        """Return the head without its Upgrade header, to be parsed again. With it the parser would lose the body."""
        head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
        return head

    def _abort(self) -> None:
        self.transport.abort()

    def _too_slow(self) -> None:
        if self._owed > 0 or self.flow.read_paused or (self.cycle and self.cycle.waiting_for_100_continue):
            self._clock.set(self._receive_s)
            return
        if not self._begun:  # an answer could be taken for that to the next request, which is perhaps on its way
            self.transport.close()
            return
        detail = f"The request did not arrive within {self._receive_s:g} s. Send it faster, or in smaller parts."
        self._refuse(refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", detail))

    def _refuse(self, problem: Problem) -> None:
        """Send a problem and end the connection. What still arrives is ignored."""
        if self.parted or self.transport.is_closing():
            return
        if self._owed > 0:
            self._final = problem
            return
        if self.cycle is None or not self.cycle.response_started or (self.cycle.response_complete and self._in_head):
            head, body = written(self._count(problem), self.headers or ())
            line = f"HTTP/1.1 {problem.status} {problem.title}\r\n".encode()
            self.transport.write(line + b"".join(b"%b: %b\r\n" % header for header in head) + b"\r\n" + body)
        self._held.end()
        end = self.transport.close if self._places is None else self.part  # nothing limits those without a place
        end()
