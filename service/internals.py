"""All uses of uvicorn and BentoML that go beyond their documented interfaces.

`tests/service/test_internals.py` fails if an upgrade changes these interfaces.

- **uvicorn's HTTP protocol.** uvicorn does not limit the time in which a request arrives, the size of its head, or the
  number of idle connections. `http.server.connections` derives a class that does.
- **Clients that hang up.** uvicorn tells it to the newest request of a connection, and not to the one that is being
  answered while the newest waits behind it: `HttpProtocol` does.
- **Answers before the end of a body.** uvicorn closes a connection, where its client asked for that, right after the
  answer. What was still on its way resets it, and the client may lose the answer: `HttpProtocol` waits
  until the client has closed it.
- **Timers.** uvicorn makes a timer after each answer, which nearly always is cancelled (see `timers`). `HttpProtocol`
  does in its place what uvicorn does after an answer.
- **Bodies.** uvicorn keeps what arrives of a body in an attribute of a request, and copies it twice.
- **The choice of that class.** BentoML's workers call `uvicorn.Config` themselves and pass no `http=`. So the entry
  `auto` of uvicorn's table of protocols is replaced.
- **Forwarded addresses.** uvicorn's middleware for what proxies say of a client stands before every request. Nothing
  here reads a client's address or scheme, so `use_protocol` leaves it out.
- **TLS handshakes.** uvicorn has no option for how long one may take, and asyncio allows a minute.
- **BentoML's app.** BentoML mounts other apps behind its own, not in front of it. Its workers call `to_asgi` of the
  service for their app; `bento` overrides that method.
- **Processes that end.** circus, which starts BentoML's workers, looks for those that have ended every ten seconds, as
  BentoML says; `look_often` makes that shorter. While circus is busy with a command, a look is left out.
- **Who commands circus.** It takes commands, such as to run a program, from everybody who reaches two ports of the
  loopback, which BentoML chooses and another program may have taken since. With `command_from_within` there are none.
- **A closed terminal.** On SIGHUP circus starts all processes anew: a server whose terminal was closed would go on,
  unseen, and keep its port. With `end_with_terminal` it ends, as on SIGTERM, unless `nohup` started it.
- **Sockets.** Processes that accept from one socket share connections unevenly: one took all of 64 that were opened at
  once. With `reserve_ports` circus binds its socket and does not listen, and with `listen_apart` each process listens
  at a socket of its own for the same port (SO_REUSEPORT), among which the kernel shares connections out.
- **Who connects too late.** The process that starts a server process has its socket as well, so that it goes on
  listening when uvicorn ends: who connects then would wait in vain. With `turn_away` nobody can connect.
- **Modules of the current folder.** BentoML's command for a worker puts it first in `sys.path`, before it imports the
  service. With `start_workers` another command is started, in which `serve_in_worker` imports the service itself.
- **Swagger UI.** BentoML's wheel contains its files, and `/docs` serves them.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable

import uvicorn
import uvicorn.config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.answers import Answers
from service.timers import Alarm

_UNREAD_S = 0.05

__all__ = [
    "HttpProtocol",
    "command_from_within",
    "end_with_terminal",
    "limit_handshakes",
    "listen_apart",
    "look_often",
    "reserve_ports",
    "rest_of_body",
    "serve_in_worker",
    "start_workers",
    "swagger_ui",
    "turn_away",
    "use_protocol",
]


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP connection, of which every request learns that its client hung up, and every client its answer.

    Attributes:
        linger_s: seconds for which it waits, after its last answer, until its client has closed it.
        parted: whether it does so now.
    """

    linger_s = 1.0
    parted = False
    _answering: RequestResponseCycle | None = None
    _lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        self._answers = Answers(transport, self.end)
        self._idle = Alarm(self.loop, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered that its client is gone: it ends, and no answer is written."""
        super().connection_lost(exc)
        self._idle.end()
        self._give_up()
        self._answers.end = self.transport.close  # else both would be left to the garbage collector
        if self._lingering is not None:
            self._lingering.cancel()

    def on_headers_complete(self) -> None:
        """Begin a request, whose answer may close this connection. HTTP/1.0 knows no `100 Continue`."""
        self.expect_100_continue = self.expect_100_continue and self.parser.get_http_version() != "1.0"
        super().on_headers_complete()
        self.cycle.transport = self._answers  # type: ignore[assignment]  # it has what a request uses of one

    def on_response_complete(self) -> None:
        """Send a head without a body, and begin the next request, if there is to be one."""
        self._answers.flush()
        self.server_state.total_requests += 1
        if self.parted or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle.set(self.timeout_keep_alive)

    def shutdown(self) -> None:
        """End when the server does: after what the client has sent already was read and answered."""
        self.loop.call_later(_UNREAD_S, super().shutdown)

    def end(self) -> None:
        """Close this connection after its last answer: at once if the request has arrived completely."""
        if self._answering is not None and self._answering.more_body and not self.transport.is_closing():
            self.part()
        else:
            self.transport.close()

    def part(self) -> None:
        """Send nothing more, and ignore what arrives until the client has closed this connection, too (RFC 9112, 9.6).

        If it were closed with bytes that nobody has read, TCP would reset it. Then the client, for example nginx, which
        still sends a body, would not get the answer.
        """
        if self.parted:
            return
        self.parted = True
        self._give_up()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self._lingering = self.loop.call_later(self.linger_s, self.transport.abort)

    def _unset_keepalive_if_required(self) -> None:
        self._idle.clear()

    def _give_up(self) -> None:
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        self._answers.begin()
        super()._start_asgi_task(cycle, app)


def use_protocol(name: str) -> None:
    """Make uvicorn use another class (`module:Class`) for HTTP connections in this process, before the app itself."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = name
    uvicorn.config.ProxyHeadersMiddleware = lambda app, **_: app  # type: ignore[attr-defined,assignment]


def rest_of_body(cycle: RequestResponseCycle, body: bytes) -> bytes:
    """Keep the first piece of a request's body as it is, and return what uvicorn is to add: nothing, or a later piece.

    uvicorn would copy the piece into a `bytearray`, and that into the message of ASGI. Most bodies have one piece.
    """
    if not cycle.body:
        cycle.body = body  # type: ignore[assignment]  # `receive` makes bytes of it, and an empty `bytearray` for the next
        return b""
    if isinstance(cycle.body, bytes):
        cycle.body = bytearray(cycle.body)
    return body


def limit_handshakes(seconds: float) -> None:
    """Limit the time of TLS handshakes for listeners that the running event loop opens from now on."""
    loop = asyncio.get_running_loop()
    loop.create_server = partial(loop.create_server, ssl_handshake_timeout=seconds)  # type: ignore[method-assign]


def look_often(seconds: float) -> None:
    """Let an arbiter of circus that is started in this process look every so many seconds for processes that ended."""
    from circus.arbiter import Arbiter  # noqa: PLC0415 - only in the process that starts the others
    from circus.controller import Controller  # noqa: PLC0415
    from circus.exc import ConflictError  # noqa: PLC0415

    start, look = Controller.start, Arbiter.manage_watchers

    def start_often(self: Controller) -> None:
        self.check_delay = 1000 * seconds
        start(self)

    async def look_unless_busy(self: Arbiter) -> None:
        with suppress(ConflictError):
            await look(self)

    Controller.start, Arbiter.manage_watchers = start_often, look_unless_busy


def command_from_within() -> None:
    """Let an arbiter of circus that is started in this process take commands from this process alone."""
    from circus.arbiter import Arbiter  # noqa: PLC0415 - only in the process that starts the others

    initialize = Arbiter.initialize

    def initialize_within(self: Arbiter) -> None:
        self.endpoint = self.ctrl.endpoint = f"inproc://commands-{id(self)}"
        self.pubsub_endpoint = f"inproc://events-{id(self)}"
        initialize(self)

    Arbiter.initialize = initialize_within


def end_with_terminal() -> None:
    """Let circus, in this process, end all others on SIGHUP. Where that is ignored already, it stays so."""
    from circus.sighandler import SysHandler  # noqa: PLC0415 - only in the process that starts the others

    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        SysHandler.SIGNALS = [each for each in SysHandler.SIGNALS if each != signal.SIGHUP]
    SysHandler.handle_hup = SysHandler.handle_term


def start_workers(module: str) -> None:
    """Let BentoML start its workers, from this process and from now on, with another module than its own."""
    from _bentoml_impl.server import serving  # noqa: PLC0415 - only in the process that starts the others

    serving._SERVICE_WORKER_SCRIPT = module


def serve_in_worker(service: Callable[[], object]) -> None:
    """Do what BentoML's command for a worker does, with a service that is imported as any other module."""
    from _bentoml_impl import loader  # noqa: PLC0415 - only in a worker
    from _bentoml_impl.worker.service import main  # noqa: PLC0415

    loader.load = lambda *_, **__: service()
    main()


def reserve_ports() -> None:
    """Let sockets that circus makes in this process from now on be bound, for others to listen at the same ports."""
    from circus.sockets import CircusSocket  # noqa: PLC0415 - only in the process that starts the others

    def bind(self: CircusSocket) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.bind((self.host, self.port))
        self.setblocking(False)

    CircusSocket.bind_and_listen = bind


def listen_apart() -> None:
    """Let uvicorn listen at sockets of its own, for the ports of those that it is given."""
    run = uvicorn.Server.run

    def run_apart(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        run(self, [_beside(each) for each in sockets or []])

    uvicorn.Server.run = run_apart  # type: ignore[method-assign]


def turn_away() -> None:
    """Let uvicorn, when it ends, turn away who connects from then on, until another process listens at its socket."""
    shutdown = uvicorn.Server.shutdown

    async def shutdown_with_sockets(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        for each in sockets or []:
            with suppress(OSError):  # it does not listen
                each.shutdown(socket.SHUT_RDWR)
        await shutdown(self, sockets)

    uvicorn.Server.shutdown = shutdown_with_sockets  # type: ignore[method-assign]


def _beside(reserved: socket.socket) -> socket.socket:
    """Return a socket for the port of another, which is closed in this process."""
    own = socket.socket(reserved.family, socket.SOCK_STREAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(reserved.getsockname())
    reserved.close()
    return own


def swagger_ui() -> Traversable:
    """Return the folder of Swagger UI's files: `swagger-ui-bundle.js` and `swagger-ui.css`."""
    return resources.files("bentoml").joinpath("_internal", "server", "static_content")
