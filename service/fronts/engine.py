"""The engine's side: takes the jobs of all fronts, tells them which models there are, and does what they ask for.

All runs on the event loop of the engine's process, except what the threads that run batches call of `Front`. A front
that does not read its messages, or ends, loses its jobs and nothing else; its place, and the rows of it, are given to
the next one once none of its rows is part of a run any more.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from math import ceil
from time import perf_counter

import msgspec

from service.engine.assembly import Assembly
from service.engine.job import Priority
from service.engine.workers import Workers
from service.errors import Reason, RequestError, refusal_of
from service.fronts.channel import Channel, Kind, Message, body_of
from service.fronts.front import Front
from service.fronts.memory import EngineMemory
from service.fronts.messages import FOLLOWED, GIVEN_UP, READY, TENSORS, Call, Reply, Welcome
from service.fronts.rows import ROW, RemoteJob, SharedRows, SharedTensors
from service.fronts.table import Table, shared_of
from service.fronts.tensors import unpack
from service.models.inputs import TensorRows
from service.models.model import Parts
from service.models.on_demand import OnDemand
from service.models.repository import Repository
from service.telemetry.metrics import Metrics
from service.threads import LOADING, Tasks

logger = logging.getLogger(__name__)
_LOOK_S = 0.03  # between two looks at the models' states
_FOLLOW_S = 30.0  # that an administrator waits for the fronts
_MOST = 64  # messages of a front that are read before those of others
_PRIORITIES = tuple(Priority)
_encode = msgspec.json.Encoder().encode


class Engine:
    """Answers all fronts of a server.

    Args:
        fronts: how many there may be.
        threads: of each front, which prepare images.
        memory: that all fronts read.
    """

    def __init__(self, fronts: int, threads: int, memory: EngineMemory) -> None:
        self._fronts, self._threads, self._memory = fronts, threads, memory
        self._numbers = count(1)
        self._places = list(range(fronts))
        self._waiting: list[Front] = []
        self._seated: set[Front] = set()
        self._tasks = Tasks()
        self.changed = asyncio.Event()  # a front has come, gone, or followed a table

    @property
    def connected(self) -> int:
        """How many fronts are connected, or have jobs that are being run."""
        return len(self._seated) + len(self._waiting)

    def assemble(self, parts: Parts) -> Assembly:
        """Make the assembly of a loaded graph, with its memory."""
        number, profile = next(self._numbers), parts.profile
        if parts.image_shape is None:
            return SharedTensors(number, self._fronts)
        # A row for each image that is being prepared, and a share of those that are run, wait or are answered.
        rows = self._threads + ceil(profile.max_batch * (profile.max_runs + 2) / self._fronts)
        return SharedRows(number, parts, self._fronts, rows)

    def start(
        self,
        listener: socket.socket,
        repository: Repository,
        on_demand: OnDemand,
        workers: Workers,
        metrics: Metrics,
    ) -> None:
        """Accept fronts, and tell them of changes. On the event loop."""
        self._repository, self._on_demand, self._workers = repository, on_demand, workers
        self._metrics = metrics
        self._table = Table(repository)
        self._table.changed()
        listener.setblocking(False)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._tasks.begin(self._look())

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            front = Front(Channel(connection), self._leave)
            self._waiting.append(front)
            asyncio.get_running_loop().add_reader(front.channel, self._receive, front)
            self._seat()

    def _seat(self) -> None:
        """Give places to the fronts that wait for one."""
        while self._places and self._waiting:
            front = self._waiting.pop(0)
            front.place = heappop(self._places)
            self._seated.add(front)
            front.send(Kind.WELCOME, [_encode(Welcome(front.place))], [self._memory.file])
            self._table.tell([front])
            self.changed.set()

    def _receive(self, front: Front) -> None:
        """Read messages of a front."""
        for _ in range(_MOST):
            try:
                message = front.channel.receive()
            except BlockingIOError:
                return
            except OSError:
                message = None
            if message is None:
                self._lose(front)
                return
            if front.parted:
                continue
            try:
                self._do(front, message)
            except Exception:  # a bug: the front is not to be trusted, all others are answered
                logger.exception("front %d is disconnected", front.place)
                front.channel.end()

    def _lose(self, front: Front) -> None:
        """Drop the jobs of a front that has ended."""
        asyncio.get_running_loop().remove_reader(front.channel)
        front.lose()
        for job in front.jobs.values():
            job.abandoned = True
        if not front.jobs:
            self._leave(front)

    def _leave(self, front: Front) -> None:
        """Free the place of a front, none of whose rows is in use any more."""
        if front.left:  # of several jobs that ended at once, each found none left
            return
        front.left = True
        front.channel.close()
        if front.place < 0:
            self._waiting.remove(front)
        else:
            self._seated.discard(front)
            for model in self._table.served.values():
                memory = shared_of(model).memory
                memory.holds[front.place] = memory.pending[front.place] = 0
            heappush(self._places, front.place)
            self._seat()
        self.changed.set()

    def _do(self, front: Front, message: Message) -> None:
        kind = message.kind
        if kind == Kind.READY:
            _, priority, model, row, deadline = READY.unpack(message.body)
            self._enter(front, model, row, deadline, priority, None)
        elif kind == Kind.TENSORS:
            body = body_of(message)
            model, number, deadline, priority = TENSORS.unpack_from(body)
            self._enter(front, model, number, deadline, priority, body[TENSORS.size :])
        elif kind == Kind.GIVEN_UP:
            _, model, number = GIVEN_UP.unpack(message.body)
            if (job := front.jobs.get((model, number))) is not None:
                job.abandoned = True
        elif kind == Kind.FOLLOWED:
            _, front.followed = FOLLOWED.unpack(message.body)
            self.changed.set()
        elif kind == Kind.CALL:
            self._tasks.begin(self._call(front, msgspec.json.decode(body_of(message), type=Call)))
        else:
            raise ValueError(f"a message of the kind {kind}")

    def _enter(
        self, front: Front, number: int, request: int, deadline: float, priority: int, tensors: memoryview | None
    ) -> None:
        """Take a job in."""
        model = self._table.served.get(number)
        if model is None:
            error = RequestError(Reason.NOT_READY, "The model is not loaded any more. Try again.", retry_after=1)
            front.fail(number, request, error)
            return
        if not shared_of(model).may_ask(front.place, request):
            raise ValueError(f"{request} is no row or request of place {front.place}")
        input_: TensorRows | None = None
        if tensors is not None:
            found = unpack(tensors)
            input_ = TensorRows(found, len(next(iter(found.values()))))
        job = RemoteJob(input_ or ROW, deadline, _PRIORITIES[priority], front, number, request)
        front.jobs[number, request] = job
        if self._repository.budget.on:
            model.usage.begin()
        model.batcher.enter(job)
        self._memory.values[EngineMemory.WAIT] = self._workers.predicted_wait()

    async def _look(self) -> None:
        """Tell fronts what has changed, for as long as the process lives."""
        values = self._memory.values
        values[EngineMemory.PARALLEL] = self._workers.size
        while True:
            values[EngineMemory.WAIT] = self._workers.predicted_wait()
            values[EngineMemory.ALIVE] = perf_counter()
            values[EngineMemory.LOST] = bool(self._repository.broken)  # it fails so quickly that it never seems busy
            for model in self._table.served.values():
                shared_of(model).memory.cost[0] = model.batcher.cost
            self._update()
            for front in self._seated:
                front.look()
            await asyncio.sleep(_LOOK_S)

    def _update(self) -> None:
        if self._table.changed():
            for name, entry in self._repository.entries.items():
                resident = self._repository.resident(entry)
                self._metrics.count_resident(name, resident.host, resident.device)
            self._table.tell(front for front in self._seated if not front.parted)

    async def _call(self, front: Front, call: Call) -> None:
        """Do what a front asks for, and reply once all fronts know what has changed."""
        try:
            reply = Reply(call.number, await self._act(call))
        except Exception as error:
            refusal = refusal_of(error, call.what)
            reply = Reply(call.number, False, refusal.reason, refusal.detail, refusal.retry_after)
        self._update()
        if call.what != "wait":
            await self._followed()
        front.send(Kind.REPLY, [_encode(reply)])

    async def _act(self, call: Call) -> bool:
        name = call.name
        if call.what == "follow":
            await LOADING.run(self._repository.follow)
            return True
        if call.what == "reload":
            return await LOADING.run(self._repository.reload, name)
        assert name is not None  # noqa: S101 - all else is about one model
        if call.what == "unload":
            await LOADING.run(self._repository.unload, name)
        elif call.what == "load":
            await self._on_demand.load(name, call.deadline)
        else:
            await self._on_demand.wait(self._repository.named(name), call.deadline, call.held)
        return True

    async def _followed(self) -> None:
        """Wait until all fronts know the last table, because a client may reach any of them."""
        number, end = self._table.number, perf_counter() + _FOLLOW_S
        while any(front.followed < number for front in self._seated if not front.parted):
            self.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(end - perf_counter()):
                    await self.changed.wait()
            if perf_counter() > end:
                logger.warning("a front has not followed within %g s", _FOLLOW_S)
                return
