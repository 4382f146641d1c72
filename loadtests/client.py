"""HTTP/1.1 load on a server of this machine, for everything in `loadtests` that sends load of its own.

Closed loop: so many clients, each waits for its answer. Open loop: Poisson arrivals, however the server keeps up.
httptools parses the answers: aiohttp's client took .07 ms longer over each, which would be charged to the server.
"""

import asyncio
import gc
import ipaddress
import random
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeVar, cast

import uvloop
from httptools import HttpParserError, HttpResponseParser

T = TypeVar("T")
Failure = Literal["", "timeout", "connection", "not sent"]
_AFTER_FAILURE = 0.01  # seconds that a closed loop's client waits after a connection failed, so that it does not spin
_SPIN = 0.001  # seconds before an arrival during which the event loop polls: its timers are only good to 1 ms
_IDLE = 3.0  # seconds after which a free connection is not used again: servers close theirs after 5 and more


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def checked(self) -> "Address":
        """Return the address with `localhost` resolved.

        Raises:
            ValueError: it is not a loopback address.
        """
        host = "127.0.0.1" if self.host == "localhost" else self.host
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"{self.host}: load goes to this machine only; give a loopback address, such as 127.0.0.1")
        return Address(host, self.port)


@dataclass(frozen=True)
class Request:
    """One HTTP request. `Host` and `Content-Length` are added."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, address: Address) -> bytes:
        """Return the request as it goes over the wire."""
        headers = {"Host": f"{address.host}:{address.port}", **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Response(NamedTuple):
    """An answer: `headers` have lower-case names, `finished` is the `perf_counter()` of its last byte's arrival."""

    status: int
    headers: dict[str, str]
    body: bytes
    finished: float


class Sample(NamedTuple):
    """What became of one request.

    Attributes:
        which: of the requests it was, from 0.
        start: when it was due (open loop) or sent (closed loop), in seconds since the load began.
        latency: from `start` to the last byte of the answer, or to the failure, in seconds.
        status: of the answer; 0 where none came.
        failure: why none came: in time, because the connection broke, or because all connections were busy.
        late: how long after it was due an open loop's request was sent, in seconds. It is part of the latency.
    """

    which: int
    start: float
    latency: float
    status: int
    failure: Failure = ""
    late: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What ends a load, whichever comes first, and how long one answer may take; seconds."""

    seconds: float
    requests: int = 1_000_000
    timeout: float = 30.0


@dataclass(frozen=True)
class Load:
    """What became of a load. `window` is the time, in seconds, during which its requests were sent."""

    samples: list[Sample]
    window: float


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
    async def open(address: Address, timeout: float) -> "Connection":
        """Connect.

        Raises:
            OSError: nobody listens, or (TimeoutError) nobody answered in time.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(Connection, address.host, address.port)
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


async def fetch(address: Address, request: Request, timeout: float = 10.0) -> Response:
    """Send one request on a connection of its own.

    Raises:
        OSError: nobody listens, the connection broke, or (TimeoutError) no answer came in time.
    """
    address = address.checked()
    connection = await Connection.open(address, timeout)
    try:
        return await connection.exchange(request.encode(address), timeout)
    finally:
        connection.close()


async def closed_loop(address: Address, requests: Sequence[Request], *, concurrency: int, limits: Limits) -> Load:
    """Let `concurrency` clients send `requests` in turn, each as soon as it has its answer, until a limit is reached.

    All connections are open before the clock starts.

    Raises:
        ValueError: the address is not on this machine.
        OSError: nobody listens.
    """
    pool = await _Pool.open(address, requests, limits.timeout, concurrency)
    samples: list[Sample] = []
    issued = 0
    begin = perf_counter()

    async def client() -> None:
        nonlocal issued
        while issued < limits.requests and perf_counter() - begin < limits.seconds:
            which = issued % len(requests)
            issued += 1
            sample = await pool.send(which, begin, perf_counter())
            samples.append(sample)
            if sample.failure:
                await asyncio.sleep(_AFTER_FAILURE)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(client())
    finally:
        pool.close()
    return Load(samples, limits.seconds if issued < limits.requests else max(s.start for s in samples))


async def open_loop(
    address: Address,
    requests: Sequence[Request],
    *,
    rate: float,
    limits: Limits,
    connections: int = 1024,
    seed: int = 0,
) -> Load:
    """Send `requests` in turn at random moments, `rate` a second on average, however long the answers take.

    A latency counts from the moment at which the request was due, so a server that stalls is charged for all who would
    have come meanwhile. Where `connections` requests are under way, one more is noted as not sent.

    Raises:
        ValueError: the address is not on this machine, or the rate is not positive.
        OSError: nobody listens.
    """
    arrivals = arrival_times(rate, limits.seconds, limits.requests, seed)
    pool = await _Pool.open(address, requests, limits.timeout, min(connections, 32))
    samples: list[Sample] = []
    under_way: set[asyncio.Task[None]] = set()
    begin = perf_counter()

    async def send(which: int, due: float) -> None:
        samples.append(await pool.send(which, begin, due))

    try:
        for number, arrival in enumerate(arrivals):
            which, due = number % len(requests), begin + arrival
            await _until(due)
            if len(under_way) >= connections:
                samples.append(Sample(which, arrival, perf_counter() - due, 0, "not sent"))
                continue
            task = asyncio.create_task(send(which, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    finally:
        for task in under_way:
            task.cancel()
        pool.close()
    return Load(samples, limits.seconds if len(arrivals) < limits.requests else arrivals[-1])


def arrival_times(rate: float, seconds: float, most: int, seed: int) -> list[float]:
    """Return the moments of a Poisson process of `rate` per second within `seconds`, at most `most`, in seconds.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"the rate is {rate}; give a number of requests per second above 0")
    chance = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    gaps = (chance.expovariate(rate) for _ in range(most))
    return list(takewhile(lambda moment: moment < seconds, accumulate(gaps)))


def run(load: Coroutine[Any, Any, T]) -> T:
    """Run a load on an event loop of its own, with what exists so far out of the garbage collector's way."""
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(load)
    finally:
        gc.unfreeze()


class _Pool:
    """Keep-alive connections to one server; one that is free is used again, else one is made."""

    def __init__(self, address: Address, requests: Sequence[Request], timeout: float) -> None:
        self._address = address
        self._encoded = [request.encode(address) for request in requests]
        self._timeout = timeout
        self._free: list[tuple[Connection, float]] = []  # with the `perf_counter()` of its last use

    @staticmethod
    async def open(address: Address, requests: Sequence[Request], timeout: float, size: int) -> "_Pool":
        pool = _Pool(address.checked(), requests, timeout)
        pool._free += [(await Connection.open(pool._address, timeout), perf_counter()) for _ in range(size)]
        return pool

    async def send(self, which: int, begin: float, due: float) -> Sample:
        """Send one request that is due at `due` (`perf_counter()`) and say what became of it."""
        sent = perf_counter()
        start, late = due - begin, sent - due
        try:
            connection = reusable(self._free) or await Connection.open(self._address, self._timeout)
            response = await connection.exchange(self._encoded[which], self._timeout)
        except OSError as error:
            kind: Failure = "timeout" if isinstance(error, TimeoutError) else "connection"
            return Sample(which, start, perf_counter() - due, 0, kind, late)
        if connection.usable:
            self._free.append((connection, response.finished))
        return Sample(which, start, response.finished - due, response.status, "", late)

    def close(self) -> None:
        for connection, _ in self._free:
            connection.close()


def reusable(free: list[tuple[Connection, float]]) -> Connection | None:
    """Take the connection that was used last, with when that was; those that are too old or broken are closed."""
    while free:
        connection, used = free.pop()
        if connection.usable and perf_counter() - used < _IDLE:
            return connection
        connection.close()
    return None


async def _until(moment: float) -> None:
    while (left := moment - perf_counter()) > 0:
        await asyncio.sleep(left - _SPIN if left > _SPIN else 0)
