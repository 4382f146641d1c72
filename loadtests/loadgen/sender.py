"""A process that sends queries over HTTP and looks into the answers.

`sut` starts it, writes a `Plan` and then queries to its standard input, and reads what became of each from its output.
"""

import asyncio
import os
import sys
from collections import deque

import msgspec

from loadtests.answers import Answers
from loadtests.client import Address, Request, run
from loadtests.connections import Connections
from loadtests.loadgen.wire import BROKEN, READY, TIMEOUT, WRONG, Plan, Reader, Records, records

_AT_FIRST = 32  # connections that are open before the first query
_STDIN, _STDOUT = 0, 1


class Sender(asyncio.Protocol):
    """Reads queries and sends each at once, or as soon as fewer than `connections` are under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._connections = Connections(Address(plan.host, plan.port), plan.timeout)
        self._requests = [
            Request("POST", plan.path, {"Content-Type": kind}, data).encode(self._connections.server)
            for kind, data in plan.photos
        ]
        self._answers = Answers()
        self._waiting: deque[tuple[int, int]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._reader = Reader(self._take)
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Learn the right answers, open connections, and send until the standard input ends.

        Raises:
            OSError: the server cannot be reached.
            ValueError: it does not answer every photo with 200.
        """
        for which, request in enumerate(self._requests):
            response = await self._connections.exchange(request)
            if response.status != 200:
                raise ValueError(f"photo {which} was answered with {response.status}: {response.body[:300]!r}")
            self._answers.learn(which, response.body)
        first = range(min(_AT_FIRST, self._plan.connections))
        await asyncio.gather(*(self._connections.exchange(self._requests[0]) for _ in first))
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, os.fdopen(_STDIN, "rb"))
        os.write(_STDOUT, records([READY], [0]))
        await self._end.wait()
        transport.close()
        for task in self._under_way:
            task.cancel()
        self._connections.close()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end.set()

    def _take(self, queries: Records) -> None:
        self._waiting.extend(zip(queries["id"].tolist(), queries["value"].tolist(), strict=True))
        for _ in range(min(len(self._waiting), self._plan.connections - len(self._under_way))):
            task = asyncio.create_task(self._send(*self._waiting.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send(self, query: int, which: int) -> None:
        """Send a query, and then those that wait, one after the other."""
        while True:
            try:
                response = await self._connections.exchange(self._requests[which])
            except TimeoutError:
                outcome = TIMEOUT
            except OSError:
                outcome = BROKEN
            else:
                right = response.status != 200 or self._answers.right(which, response.body)
                outcome = response.status if right else WRONG
            os.write(_STDOUT, records([query], [outcome]))
            if not self._waiting:
                break
            query, which = self._waiting.popleft()


def main() -> None:
    """Read the plan from the standard input (its length in 8 bytes, then MessagePack) and send what follows."""
    size = int.from_bytes(_read(8), "little")
    plan = msgspec.msgpack.decode(_read(size), type=Plan)

    async def send() -> None:
        await Sender(plan).run()

    try:
        run(send())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:  # Ctrl+C reaches the whole process group; LoadGen's process says so
        sys.exit(130)


def _read(size: int) -> bytes:
    """Read exactly `size` bytes, past Python's buffers: what follows belongs to the event loop."""
    data = b""
    while len(data) < size:
        if not (more := os.read(_STDIN, size - len(data))):
            sys.exit("the plan was cut off")
        data += more
    return data


if __name__ == "__main__":
    main()
