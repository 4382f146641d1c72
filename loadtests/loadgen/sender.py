"""A process that sends queries and looks into the answers.

`sut` starts it, writes a `Plan` and then queries to its standard input, and reads what became of each from its output.
"""

import asyncio
import os
import sys
from collections import deque
from contextlib import ExitStack
from hashlib import sha256

from loadtests.answers import Answers
from loadtests.client import run
from loadtests.loadgen.moment import since
from loadtests.loadgen.wire import READY, Plan, Reader, Records, records
from loadtests.transport import WRONG, Answer, outcome_name, transport

_AT_FIRST = 32  # connections that are open before the first query
_STDIN, _STDOUT = 0, 1


class Sender(asyncio.Protocol):
    """Reads queries and sends each at once, or as soon as fewer than `connections` are under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._transport = transport(plan.target, plan.requests(), plan.timeout)
        self._answers = Answers()
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._reader = Reader(self._take)
        self._end = asyncio.Event()
        self._bodies = -1  # the file that bodies are kept in

    async def run(self) -> None:
        """Learn the right answers, open connections, and send until the standard input ends.

        Raises:
            OSError: a file for the answers cannot be written.
            ValueError: the server does not answer every image with 200.
        """
        with ExitStack() as stack:
            if self._plan.answers:
                self._bodies = os.open(self._plan.answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                stack.callback(os.close, self._bodies)
            else:
                await self._learn()
            loop = asyncio.get_running_loop()
            pipe, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(_STDIN, "rb"))
            os.write(_STDOUT, records([READY], [0]))
            await self._end.wait()
            pipe.close()
            for task in self._under_way:
                task.cancel()
            await self._transport.close()

    async def _learn(self) -> None:
        for which in range(len(self._plan.images)):
            answer = await self._transport.ask(which)
            if answer.outcome != 200:
                name = outcome_name(answer.outcome)
                raise ValueError(f"image {which} was answered with {name}: {answer.body[:300]!r}")
            self._answers.learn(which, answer.body)
        await asyncio.gather(*(self._transport.ask(0) for _ in range(min(_AT_FIRST, self._plan.connections))))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end.set()

    def _take(self, queries: Records) -> None:
        self._waiting.extend(
            zip(queries["id"].tolist(), queries["value"].tolist(), queries["extra"].tolist(), strict=True)
        )
        for _ in range(min(len(self._waiting), self._plan.connections - len(self._under_way))):
            task = asyncio.create_task(self._send(*self._waiting.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send(self, query: int, which: int, due: int) -> None:
        """Send a query, and then those that wait, one after the other."""
        while True:
            late = since(due)
            answer = await self._transport.ask(which)
            extra = late if self._bodies < 0 else self._keep(which, answer)
            os.write(_STDOUT, records([query], [self._judge(which, answer)], extra))
            if not self._waiting:
                break
            query, which, due = self._waiting.popleft()

    def _judge(self, which: int, answer: Answer) -> int:
        if answer.outcome != 200 or self._bodies >= 0 or self._answers.right(which, answer.body):
            return answer.outcome
        return WRONG

    def _keep(self, which: int, answer: Answer) -> int:
        """Append an answer to the file, with the hash of its image; its size."""
        if answer.outcome != 200:
            return 0
        body = logged(self._plan.images[which].read(), answer.body)
        view = memoryview(body)
        while view:
            view = view[os.write(self._bodies, view) :]
        return len(body)


def logged(image: bytes, answer: bytes) -> bytes:
    """Return what the accuracy log holds of an image: JSON with the SHA-256 of its file and the server's answer."""
    return b'{"image_sha256":"%s","answer":%s}' % (sha256(image).hexdigest().encode(), answer)


def main() -> None:
    """Read the plan from the standard input (its length in 8 bytes, then MessagePack) and send what follows."""
    size = int.from_bytes(_read(8), "little")
    plan = Plan.decode(_read(size))

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
    data = bytearray()
    while len(data) < size:
        if not (more := os.read(_STDIN, size - len(data))):
            sys.exit("the plan was cut off")
        data += more
    return bytes(data)


if __name__ == "__main__":
    main()
