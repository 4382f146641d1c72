"""A front's connection to the engine: made again for as long as the front lives. The event loop receives."""

import asyncio
import logging
import os
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from time import perf_counter

import msgspec

from service.errors import RequestError
from service.fronts.channel import Channel, Kind, Message, body_of, connect
from service.fronts.connection import Connection, engine_gone
from service.fronts.memory import EngineMemory
from service.fronts.messages import ANSWER, DONE, FOLLOWED, Call, Failure, Reply, Table, Welcome, error_of
from service.fronts.remote import FrontQueue
from service.fronts.tensors import unpack

logger = logging.getLogger(__name__)
_AGAIN_S = 0.05  # between two attempts to connect
_HELD_S = 60.0  # the longest time for which a thread may hold rows of an engine that is gone
_encode = msgspec.json.Encoder().encode


class Link:
    """The connection, and the calls that wait for a reply.

    Args:
        address: of the engine; see `channel.listen`.
        follow: called with the connection, every table, and the descriptors that came with it.
        lost: called when the engine has ended.

    Attributes:
        connection: that there is; None: there is no engine, or it has not answered yet.
    """

    def __init__(
        self, address: int, follow: Callable[[Connection, Table, list[int]], None], lost: Callable[[], None]
    ) -> None:
        self.connection: Connection | None = None
        self._address, self._follow, self._lost = address, follow, lost
        self._calls: dict[int, Future[bool]] = {}
        self._numbers = count(1)
        self._closed = threading.Event()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._alone = perf_counter()  # since when there is no connection

    def start(self) -> None:
        """Begin to connect: on the event loop that runs, or else on one with a thread of its own."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = self._own_loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="engine", daemon=True).start()
        self._loop.call_soon_threadsafe(self._connect)

    def close(self) -> None:
        """End the connection."""
        self._closed.set()
        if (connection := self.connection) is not None:
            connection.channel.end()

    @property
    def silent(self) -> float:
        """Seconds since the engine last showed that it lives, or since there is no connection."""
        connection = self.connection
        return connection.silent if connection else perf_counter() - self._alone

    def call(
        self, what: str, name: str | None = None, deadline: float = 0.0, held: list[str] | None = None
    ) -> Future[bool]:
        """Ask the engine for something; the future ends with its reply, or with a `RequestError`."""
        number, future = next(self._numbers), Future[bool]()
        self._calls[number] = future
        call = _encode(Call(number, what, name, deadline, held or []))
        connection = self.connection
        try:
            if connection is None:
                raise ConnectionResetError("there is no engine")
            connection.outbox.send_body(Kind.CALL, [call])
        except OSError:
            self._end_call(number, engine_gone())
        return future

    def _connect(self, before: Sequence[FrontQueue] = (), since: float = 0.0, channel: Channel | None = None) -> None:
        """Connect, once no thread holds rows of the connection before.

        Until then the engine does not see its end, and gives the rows to nobody else.
        """
        if self._closed.is_set():
            if self._own_loop is not None:
                self._own_loop.stop()
            return
        if any(queue.writing for queue in before):
            if perf_counter() - since > _HELD_S:
                logger.critical("the process ends, to be started anew: the decoding of an image does not end")
                os._exit(1)
            self._loop.call_later(_AGAIN_S, self._connect, before, since, channel)
            return
        if channel is not None:
            channel.end()
        try:
            connection = Connection(connect(self._address), self._loop)
        except OSError:
            self._loop.call_later(_AGAIN_S, self._connect)
            return
        self._loop.add_reader(connection.channel, self._receive, connection)

    def _receive(self, connection: Connection) -> None:
        """Do what the next message says, or see that the connection has ended."""
        try:
            message = connection.channel.receive()
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            self._disconnect(connection)
            return
        try:
            self._do(connection, message)
        except Exception:  # a bug: a new connection begins anew
            logger.exception("the connection to the engine is made again")
            self._disconnect(connection)

    def _do(self, connection: Connection, message: Message) -> None:
        kind, body, queues = message.kind, body_of(message), connection.queues
        if kind == Kind.DONE:
            _, threads, model, batch, run, ran = DONE.unpack_from(message.body)
            rows = struct.unpack_from(f"<{(len(message.body) - DONE.size) // 4}I", message.body, DONE.size)
            if (queue := queues.get(model)) is not None:
                queue.done(rows, threads, batch, run, ran)
        elif kind == Kind.ANSWER:
            model, number, batch, threads, run, ran = ANSWER.unpack_from(body)
            if (queue := queues.get(model)) is not None:
                queue.answered(number, unpack(body[ANSWER.size :]), threads, batch, run, ran)
        elif kind == Kind.FAILED:
            failure = msgspec.json.decode(body, type=Failure)
            if (queue := queues.get(failure.model)) is not None:
                if failure.over:
                    queue.failed(failure.number, error_of(failure))
                else:
                    queue.late(failure.number)
        elif kind == Kind.TABLE:
            table = msgspec.json.decode(body, type=Table)
            self._follow(connection, table, message.files)
            if table.number:
                with suppress(OSError):  # the end of the connection is seen by `receive`
                    connection.outbox.send(FOLLOWED.pack(Kind.FOLLOWED, table.number))
        elif kind == Kind.REPLY:
            reply = msgspec.json.decode(body, type=Reply)
            self._end_call(reply.number, error_of(reply) if reply.reason else reply.result)
        elif kind == Kind.WELCOME:
            connection.memory = EngineMemory(message.files[0])
            connection.place = msgspec.json.decode(body, type=Welcome).place
            self.connection = connection

    def _disconnect(self, connection: Connection) -> None:
        """End everything that waits for the engine, and connect again."""
        self._loop.remove_reader(connection.channel)
        if self.connection is not None and not self._closed.is_set():
            logger.error("the connection to the engine has ended")
        self.connection, self._alone = None, perf_counter()
        connection.ended = True
        connection.outbox.close()
        self._lost()
        before = list(connection.queues.values())
        for queue in before:
            queue.lost()
        connection.queues.clear()  # they refer to the connection: without this cycle its files are closed at once
        for number in list(self._calls):
            self._end_call(number, engine_gone())
        self._loop.call_later(_AGAIN_S, self._connect, before, perf_counter(), connection.channel)

    def _end_call(self, number: int, outcome: bool | RequestError) -> None:
        future = self._calls.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, RequestError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
