"""HTTP/1.1 load on a server, for everything in `loadtests` that sends load of its own. `target` says which servers.

Closed loop: so many clients, each waits for its answer. Open loop: Poisson arrivals, however the server keeps up.
"""

import asyncio
import gc
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeVar

import uvloop

from loadtests.exchange import Connection, Request, Response, fetch
from loadtests.target import Target
from loadtests.transport import BROKEN, GRPC, TIMEOUT, UNREADABLE, Asked, Transport, transport

__all__ = [
    "Connection",
    "Limits",
    "Load",
    "Request",
    "Response",
    "Sample",
    "arrival_times",
    "closed_loop",
    "fetch",
    "open_loop",
    "run",
]
T = TypeVar("T")
Failure = Literal["", "timeout", "connection", "not sent"]
_FAILURES: dict[int, Failure] = {TIMEOUT: "timeout", BROKEN: "connection", UNREADABLE: "not sent"}
# Of gRPC as HTTP has them, so that reports of both read alike; 500 for all others.
_STATUSES = {3: 400, 5: 404, 8: 429, 16: 401}
_AFTER_FAILURE = 0.01  # seconds that a closed loop's client waits after a connection failed, so that it does not spin
_SPIN = 0.001  # seconds before an arrival during which the event loop polls: its timers are only good to 1 ms


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
    """What ends a load, whichever comes first, and how long one answer may take; seconds.

    A client of a closed loop waits for `pause` after a 503.
    """

    seconds: float
    requests: int = 1_000_000
    timeout: float = 30.0
    pause: float = 0.0


@dataclass(frozen=True)
class Load:
    """What became of a load.

    Attributes:
        samples: of its requests.
        window: the time, in seconds, during which they were sent.
        begin: of a closed loop, when that was, as `perf_counter()`.
    """

    samples: list[Sample]
    window: float
    begin: float = 0.0


async def closed_loop(server: Target, requests: Sequence[Asked], *, concurrency: int, limits: Limits) -> Load:
    """Let `concurrency` clients send `requests` in turn, each as soon as it has its answer, until a limit is reached.

    All connections are open before the clock starts.

    Raises:
        OSError: nobody listens.
    """
    by = await _open(server, requests, limits.timeout, concurrency)
    samples: list[Sample] = []
    issued = 0
    begin = perf_counter()

    async def client() -> None:
        nonlocal issued
        while issued < limits.requests and perf_counter() - begin < limits.seconds:
            which = issued % len(requests)
            issued += 1
            sample = await _send(by, which, begin, perf_counter())
            samples.append(sample)
            if sample.failure:
                await asyncio.sleep(_AFTER_FAILURE)
            elif sample.status == 503 and limits.pause:
                await asyncio.sleep(limits.pause)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(client())
    finally:
        await by.close()
    return Load(samples, limits.seconds if issued < limits.requests else max(s.start for s in samples), begin)


async def open_loop(
    server: Target,
    requests: Sequence[Asked],
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
        ValueError: the rate is not positive.
        OSError: nobody listens.
    """
    arrivals = arrival_times(rate, limits.seconds, limits.requests, seed)
    by = await _open(server, requests, limits.timeout, min(connections, 32))
    samples: list[Sample] = []
    under_way: set[asyncio.Task[None]] = set()
    begin = perf_counter()

    async def send(which: int, due: float) -> None:
        samples.append(await _send(by, which, begin, due))

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
        await by.close()
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


async def _open(server: Target, requests: Sequence[Asked], timeout: float, connections: int) -> Transport:
    by = transport(server, requests, timeout)
    try:
        await by.open(connections)
    except BaseException:
        await by.close()
        raise
    return by


async def _send(by: Transport, which: int, begin: float, due: float) -> Sample:
    """Send one request that is due at `due` (`perf_counter()`) and say what became of it."""
    late = perf_counter() - due
    answer = await by.ask(which)
    failure: Failure = _FAILURES.get(answer.outcome, "")
    status = _STATUSES.get(answer.outcome - GRPC, 500) if answer.outcome >= GRPC else answer.outcome
    return Sample(which, due - begin, answer.finished - due, 0 if failure else status, failure, late)


async def _until(moment: float) -> None:
    while (left := moment - perf_counter()) > 0:
        await asyncio.sleep(left - _SPIN if left > _SPIN else 0)
