"""What is used of uvicorn and BentoML beyond their documented interfaces is still there, and means the same."""

import ast
import asyncio
import contextlib
import importlib
import inspect
import itertools
import os
import re
import signal
import socket
import time
from unittest.mock import Mock

import bentoml
import pytest
import uvicorn
import uvloop
import zmq
from _bentoml_impl import loader
from _bentoml_impl.server import serving
from _bentoml_impl.worker import service as worker
from circus.arbiter import Arbiter
from circus.controller import Controller
from circus.sighandler import SysHandler
from circus.sockets import CircusSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.http.server import connections
from service.http.server.connections import Connection
from service.internals import (
    HttpProtocol,
    command_from_within,
    end_with_terminal,
    limit_handshakes,
    listen_apart,
    look_often,
    reserve_ports,
    rest_of_body,
    serve_in_worker,
    start_workers,
    swagger_ui,
    turn_away,
    use_protocol,
)
from tests.conftest import free_port

NODES = list(ast.walk(ast.parse(inspect.getsource(connections))))
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"


def attributes_of(name: str) -> set[str]:
    """The attributes that `http.server.connections` uses of `self`, or of `self.<name>`."""
    return {node.attr for node in NODES if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name}


def opened(answer) -> tuple[Connection, Mock]:
    """A connection, and its transport."""
    config = uvicorn.Config(answer, lifespan="off")
    config.load()
    connection, transport = Connection(config, ServerState(), {}), Mock(asyncio.Transport)
    transport.is_closing.return_value, transport.get_write_buffer_size.return_value = False, 0
    transport.get_extra_info.return_value = None
    connection.connection_made(transport)
    return connection, transport


def serve(answer) -> tuple[Connection, Mock]:
    """A connection whose client has sent one request, and its transport, once the app has answered."""

    async def run() -> tuple[Connection, Mock]:
        connection, transport = opened(answer)
        connection.data_received(REQUEST)
        await asyncio.sleep(0.01)
        return connection, transport

    return asyncio.run(run())


async def answer(_scope, _receive, send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_the_protocol_has_what_connections_use():
    connection, transport = serve(answer)
    assert transport.writelines.call_args_list[0].args[0][0].startswith(b"HTTP/1.1 204 ")
    assert {name for name in attributes_of("self") if not hasattr(connection, name)} == set()
    assert {name for name in attributes_of("super()") if not hasattr(HttpToolsProtocol, name)} == set()
    for name in ("cycle", "parser", "transport"):
        used = attributes_of(f"self.{name}")
        assert used, name
        assert {each for each in used if not hasattr(getattr(connection, name), each)} == set(), name
    assert connection.cycle.response_started
    assert connection.cycle.response_complete


def test_uvicorn_calls_back_what_connections_override():
    made, declared = (list(inspect.signature(kind).parameters) for kind in (Connection, HttpToolsProtocol))
    assert made == declared
    called = {name for name in vars(Connection) if name.startswith("on_")} | {"pause_writing", "resume_writing"}
    called |= {name for name in vars(HttpProtocol) if inspect.isfunction(vars(HttpProtocol)[name])}
    called |= {"connection_made", "connection_lost", "data_received", "send_400_response"}
    called -= {"end", "part", "_give_up"}  # our own
    assert {name for name in called if name not in vars(HttpToolsProtocol)} == set()


def test_what_was_sent_before_the_server_ends_is_answered():
    async def run() -> Mock:
        connection, transport = opened(answer)
        connection.shutdown()
        transport.close.assert_not_called()
        connection.data_received(REQUEST)
        await asyncio.sleep(0.1)
        return transport

    transport = asyncio.run(run())
    assert transport.writelines.call_args_list[0].args[0][0].startswith(b"HTTP/1.1 204 ")
    transport.close.assert_called()


def test_requests_use_no_more_of_a_transport_than_they_are_given():
    connection, _ = serve(answer)
    used = set(re.findall(r"self\.transport\.(\w+)", inspect.getsource(RequestResponseCycle)))
    assert used == {name for name in ("write", "close", "is_closing") if hasattr(connection.cycle.transport, name)}


@pytest.mark.parametrize("size", [1, 3, 70_000])
def test_bodies_arrive_whole_in_however_many_pieces(size):
    cycle = Mock(body=bytearray())
    sent, arrived = [bytes([n % 256]) * size for n in range(4)], b""
    for number, piece in enumerate(sent):
        rest = rest_of_body(cycle, piece)
        cycle.body += rest  # as uvicorn does
        if number == 2:  # the app reads
            arrived, cycle.body = bytes(cycle.body), bytearray()
    assert arrived + bytes(cycle.body) == b"".join(sent)


def test_uvicorn_takes_the_class_that_auto_stands_for(monkeypatch):
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(uvicorn.config, "ProxyHeadersMiddleware", uvicorn.config.ProxyHeadersMiddleware)
    use_protocol("service.http.server.connections:Connection")
    assert hasattr(uvicorn.config, "ProxyHeadersMiddleware")
    config = uvicorn.Config(answer, interface="asgi3")
    config.load()
    assert config.http_protocol_class is Connection
    assert config.loaded_app is answer, "no middleware before the app"


def test_bentoml_asks_the_service_for_its_app_and_leaves_the_protocol_to_uvicorn():
    source = inspect.getsource(importlib.import_module("_bentoml_impl.worker.service"))
    assert "service.to_asgi(" in source
    (arguments,) = re.findall(r"uvicorn\.Config\((.*?)\n    \)", source, re.DOTALL)
    assert not re.search(r"\bhttp=", arguments)
    assert '"http"' not in source
    assert list(inspect.signature(bentoml.Service.to_asgi).parameters) == ["self", "is_main"]
    assert "service_class" in inspect.signature(bentoml.service).parameters
    assert hasattr(bentoml.server_context, "worker_index")


def test_circus_looks_as_often_as_it_is_told(monkeypatch):
    """`test_front_processes` sees that it does."""
    for kind, name in ((Controller, "start"), (Arbiter, "manage_watchers")):
        assert inspect.isfunction(vars(kind)[name])
        monkeypatch.setattr(kind, name, vars(kind)[name])  # as it was, afterwards
    source = inspect.getsource(Controller.start)
    assert "AsyncPeriodicCallback(self.arbiter.manage_watchers" in source
    assert "self.check_delay" in source
    look_often(0.5)
    arbiter = Mock(Arbiter)
    arbiter._restarting, arbiter.arbiter = False, arbiter
    arbiter._exclusive_running_command = "start_watchers"
    assert asyncio.run(Arbiter.manage_watchers(arbiter)) is None, "a look while circus is busy is left out"
    assert arbiter._exclusive_running_command == "start_watchers"


def test_circus_takes_commands_from_this_process_alone(monkeypatch):
    """`test_ports` sees that no other can."""
    monkeypatch.setattr(Arbiter, "initialize", Arbiter.initialize)
    command_from_within()
    arbiter = Arbiter([], "tcp://127.0.0.1:1", "tcp://127.0.0.1:1")  # which only root may listen at, and nobody does
    arbiter.initialize()
    arbiter.ctrl.initialize()
    bound = {each.get(zmq.LAST_ENDPOINT).decode() for each in (arbiter.evpub_socket, arbiter.ctrl.ctrl_socket)}
    assert bound == {arbiter.pubsub_endpoint, arbiter.endpoint}
    assert all(each.startswith("inproc://") for each in bound)
    arbiter.evpub_socket.close()
    arbiter.ctrl.ctrl_socket.close()


@pytest.mark.parametrize(("before", "handled"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_ends_all_but_what_nohup_started(monkeypatch, before, handled):
    """`test_stop` sees that it does."""
    monkeypatch.setattr(SysHandler, "SIGNALS", SysHandler.SIGNALS)
    monkeypatch.setattr(SysHandler, "handle_hup", SysHandler.handle_hup)
    monkeypatch.setattr(signal, "getsignal", {signal.SIGHUP: before}.get)
    end_with_terminal()
    assert (signal.SIGHUP in SysHandler.SIGNALS) is handled
    assert signal.SIGTERM in SysHandler.SIGNALS
    handler = Mock(SysHandler)
    SysHandler.handle_hup(handler)
    handler.quit.assert_called_once_with()


def test_bentoml_starts_our_worker_in_place_of_its_own(monkeypatch):
    """`test_folder` sees that it is started."""
    monkeypatch.setattr(serving, "_SERVICE_WORKER_SCRIPT", serving._SERVICE_WORKER_SCRIPT)
    assert importlib.util.find_spec(serving._SERVICE_WORKER_SCRIPT)
    assert "        _SERVICE_WORKER_SCRIPT,\n" in inspect.getsource(serving)
    start_workers("service.worker")
    assert serving._SERVICE_WORKER_SCRIPT == "service.worker"


def test_a_worker_serves_what_it_is_given(monkeypatch):
    asked = []
    monkeypatch.setattr(loader, "load", loader.load)
    monkeypatch.setattr(
        worker, "main", lambda: asked.append(loader.load("service.bento:ZooServe", standalone_load=True))
    )
    serve_in_worker(lambda: "a service")
    assert asked == ["a service"]
    source = inspect.getsource(importlib.import_module("_bentoml_impl.worker.service"))
    assert "    from _bentoml_impl.loader import load\n" in source
    assert "service = load(bento_identifier, standalone_load=True)" in source


def test_a_reserved_port_is_listened_at_by_several(monkeypatch):
    for kind, name in ((CircusSocket, "bind_and_listen"), (uvicorn.Server, "run")):
        monkeypatch.setattr(kind, name, vars(kind)[name])  # as it was, afterwards
    given = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: given.extend(sockets))
    source = inspect.getsource(importlib.import_module("_bentoml_impl.worker.service"))
    assert "uvicorn.Server(config).run(sockets=[socket])" in source
    reserve_ports()
    listen_apart()
    with CircusSocket("http", "127.0.0.1", free_port()) as reserved:
        reserved.bind_and_listen()
        for _ in range(2):
            uvicorn.Server(uvicorn.Config(answer)).run(sockets=[socket.socket(fileno=os.dup(reserved.fileno()))])
        assert {each.getsockname() for each in given} == {reserved.getsockname()}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(reserved.getsockname())
        for each in given:
            each.listen(64)
        clients = [socket.create_connection(reserved.getsockname()) for _ in range(32)]
        time.sleep(0.1)
        counts = []
        for each in given:
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for number in itertools.count(1):
                    each.accept()[0].close()
                    counts.append(number)
        assert len(counts) == 32
        assert counts.count(1) == 2, "both had some"
        for each in [*given, *clients]:
            each.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_handshakes_are_limited(new_loop):
    async def main() -> dict[str, float]:
        limit_handshakes(3.0)
        return asyncio.get_running_loop().create_server.keywords

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) == {"ssl_handshake_timeout": 3.0}
    for loop in (asyncio.BaseEventLoop, uvloop.Loop):
        assert "ssl_handshake_timeout" in str(inspect.signature(loop.create_server))


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css"])
def test_bentoml_brings_swagger_ui(name):
    assert b"swagger" in swagger_ui().joinpath(name).read_bytes().lower()


def test_who_connects_after_the_end_is_turned_away_until_another_process_listens(monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "shutdown", uvicorn.Server.shutdown)
    turn_away()
    config = uvicorn.Config(answer, lifespan="off")
    config.load()
    with socket.create_server(("127.0.0.1", free_port())) as shared:  # a port that was chosen, as the server's
        address = shared.getsockname()
        server = uvicorn.Server(config)
        server.servers, server.lifespan = [], config.lifespan_class(config)
        asyncio.run(server.shutdown([socket.socket(fileno=os.dup(shared.fileno()))]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        shared.listen(8)
        socket.create_connection(address).close()
