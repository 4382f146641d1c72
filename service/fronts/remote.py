"""A model of the engine, as a front has it: its queue prepares images in the model's memory and makes the answers.

Threads: as in `intake`, but light answers are made on the event loop. What the engine says comes on that loop too. A
job that was sent is in `_sent` until one of three has taken it out: what brings its outputs, what brings its error, or
the end of the connection.
"""

import threading
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from time import perf_counter

from service.arrays import Tensors
from service.engine.intake import Intake, parts_of
from service.engine.job import AnyJob, Jobs, time_out
from service.engine.workers import Workers
from service.errors import RequestError
from service.fronts.channel import Kind
from service.fronts.connection import Connection, engine_gone
from service.fronts.memory import EngineMemory, ModelMemory
from service.fronts.messages import GIVEN_UP, READY, REQUESTS, TENSORS, ServedModel
from service.fronts.tensors import pack
from service.models.model import Model
from service.models.usage import Usage
from zoo.served_card import AnyServed, decode_served_card

_COST_S = 0.002  # of an image in a front, to begin with


class FrontQueue(Intake):
    """The jobs of this front for one model.

    Args:
        number: of the model.
        memory: of the model.
        connection: to the engine.
        workers: the threads of this front.
        max_queue: how many jobs may be under way, of all fronts together.
    """

    def __init__(
        self, number: int, memory: ModelMemory, connection: Connection, workers: Workers, max_queue: int
    ) -> None:
        super().__init__(workers, max_queue=max_queue, cost=_COST_S if memory.layout.shape else 0.0)
        self._number, self._memory, self._connection = number, memory, connection
        self._sent: dict[int, AnyJob] = {}  # by row, or by the number of a request of tensors
        self._requests = count(REQUESTS)
        first, rows = connection.place * memory.layout.rows, memory.layout.rows
        self._free = list(range(first, first + rows))  # a heap: the first free row is taken, as neighbours are a batch
        self._without: list[tuple[int, float, int, AnyJob]] = []  # a heap of jobs that wait for a row
        self._order = count()
        self._lock = threading.Lock()  # guards these two heaps

    @property
    def cost(self) -> float:
        """Seconds of work that a row is expected to take, here and in the engine."""
        return self._cost + self._memory.cost[0]

    @property
    def able(self) -> bool:
        """Whether the engine is there, shows that it lives, and is not about to unload the model."""
        return self._connection.responds and not self._memory.closing[0]

    def wait(self, rows: int = 1) -> float:
        """Seconds until work would begin for the last of some rows: until this front and the engine have time.

        What the other fronts have not sent to the engine yet is not known.
        """
        engine = self._connection.memory.values
        own = max(0, self.pending + rows - 1 - len(self._sent)) * self._memory.cost[0]
        ahead = engine[EngineMemory.WAIT] + own / max(1.0, engine[EngineMemory.PARALLEL])
        return super().wait(rows) + ahead

    @property
    def writing(self) -> bool:
        """Whether a job still has a row, which a thread may write or read."""
        with self._lock:
            return len(self._free) < self._memory.layout.rows

    def waiting(self) -> int:
        return sum(self._memory.pending)

    def process(self, job: AnyJob) -> None:
        """Prepare a job, and let the engine run it."""
        if self._connection.ended:
            job.fail(engine_gone())
            self._deliver([job])
            return
        if not job.input.tensors and not self._take_row(job):
            return
        if not self._prepare(job):
            self._deliver([job])
            return
        row, outbox = job.row, self._connection.outbox
        number = row if row >= 0 else REQUESTS | next(self._requests) % REQUESTS
        self._sent[number], job.holder = job, self
        try:
            if row >= 0:
                outbox.send(READY.pack(Kind.READY, job.priority, self._number, row, job.deadline))
            else:
                head = TENSORS.pack(self._number, number, job.deadline, job.priority)
                outbox.send_body(Kind.TENSORS, [head, *pack(job.input.tensors)])
                if job.abandoned:  # meanwhile: the engine knew no such request yet
                    self._send_given_up(number)
        except OSError:
            self._lose(number)

    def done(self, rows: tuple[int, ...], threads: int, batch: int, run: float, ran: float) -> None:
        """Answer the images whose rows were run. On the connection's event loop."""
        jobs = [job for row in rows if (job := self._ran(row, threads, batch, run, ran)) is not None]
        for some, _ in parts_of([job for job in jobs if not job.input.light], self._workers.size):
            self._workers.hand_over(self, some, partial(self._finish, some, None))
        light = [job for job in jobs if job.input.light]
        if light and light[0].future.get_loop() is self._connection.loop:
            self._finish_here(light)
        elif light:
            self._workers.deliver(light, self._finish_here)

    def answered(self, number: int, outputs: Tensors, threads: int, batch: int, run: float, ran: float) -> None:
        """Answer a request of tensors, or an image whose outputs found no room in the memory."""
        job = self._ran(number, threads, batch, run, ran)
        if job is None:
            return
        if number >= REQUESTS:
            job.succeed(outputs)
            self._deliver([job])
        else:
            self._workers.hand_over(self, [job], partial(self._finish, [job], outputs))

    def failed(self, number: int, error: RequestError) -> None:
        """End a job with an error."""
        job = self._sent.pop(number, None)
        if job is not None:
            job.fail(error)
            self._deliver([job])

    def late(self, number: int) -> None:
        """Answer the request of a job whose run takes too long. Its row is in use until the run ends."""
        if (job := self._sent.get(number)) is not None:
            self._workers.deliver([job], time_out)

    def give_up(self, job: AnyJob) -> None:
        """Tell the engine that nobody waits for a job any more."""
        with self._lock:
            if job.row >= 0:
                self._memory.given_up[job.row] = 1
                return
        number = next((number for number, sent in list(self._sent.items()) if sent is job), None)
        if number is not None:
            with suppress(OSError):  # the engine has ended
                self._send_given_up(number)

    def lost(self) -> None:
        """End all jobs that the engine had: it has ended. Nothing is sent any more."""
        for number in list(self._sent):
            self._lose(number)
        with self._lock:
            without, self._without = self._without, []
        for *_, job in without:
            job.fail(engine_gone())
            self._deliver([job])

    def settle(self, jobs: Jobs) -> None:
        """Resolve the futures of finished jobs."""
        super().settle(jobs)
        self._tell_pending()

    def _count(self, job: AnyJob) -> None:
        super()._count(job)
        self._tell_pending()

    def _tell_pending(self) -> None:
        if not self._connection.ended:  # else its place may be another one's
            self._memory.pending[self._connection.place] = self.pending

    def _cost_of(self, job: AnyJob) -> float:
        return (job.prepared - job.started + job.finishing) / job.input.rows

    def _make_ready(self, job: AnyJob) -> None:
        if job.row >= 0:
            memory = self._memory
            memory.lengths[job.row] = job.input.write(memory.images[job.row], jpegs=memory.layout.jpegs)

    def _release(self, jobs: Jobs) -> None:
        """Give the rows of jobs back, and let as many jobs go on that wait for one."""
        for job in jobs:
            if job.row < 0:
                job.holder = None
                continue
            with self._lock:
                heappush(self._free, job.row)
                job.row, job.holder = -1, None
                waits = heappop(self._without)[-1] if self._without else None
            if waits is not None:
                self._workers.put(waits, self)

    def _take_row(self, job: AnyJob) -> bool:
        """Take a row for a job; where all are taken, the job waits for one without a thread."""
        with self._lock:
            ended = self._connection.ended  # then the next connection may have the rows already
            if not ended and self._free:
                job.row, job.holder = heappop(self._free), self
                self._memory.given_up[job.row] = 0
                return True
            if not ended:
                # By age: a job that found the row that became free for it taken by another one is first again.
                heappush(self._without, (job.priority, job.submitted, next(self._order), job))
        if ended:
            job.fail(engine_gone())
            self._deliver([job])
        return False

    def _ran(self, number: int, threads: int, batch: int, run: float, ran: float) -> AnyJob | None:
        job = self._sent.pop(number, None)
        if job is not None:
            job.threads, job.batch_size, job.run, job.ran = threads, batch, run, ran
        return job

    def _finish(self, jobs: Jobs, outputs: Tensors | None) -> None:
        """Make the answers of images, on a worker."""
        self._answer(jobs, outputs)
        self._deliver(jobs)

    def _finish_here(self, jobs: Jobs) -> None:
        """Make answers on the event loop, which has to wake up for them in any case."""
        self._answer(jobs, None)
        self.settle(jobs)

    def _answer(self, jobs: Jobs, outputs: Tensors | None) -> None:
        """Make the answers of images. Their outputs are copied first, so that the rows are free again."""
        for job in jobs:
            begun, row = perf_counter(), job.row
            try:
                own = outputs or self._memory.row_of(row)
                self._release([job])
                job.succeed(job.input.answer(own, 0))
            except BaseException as error:
                job.fail(error)
            job.finishing = job.finished - begun

    def _send_given_up(self, number: int) -> None:
        self._connection.outbox.send(GIVEN_UP.pack(Kind.GIVEN_UP, self._number, number))

    def _lose(self, number: int) -> None:
        self.failed(number, engine_gone())


class FrontUsage(Usage):
    """The use of a model by this front's requests; the engine sees how many hold it."""

    __slots__ = ("_connection", "_memory")

    def __init__(self, memory: ModelMemory, connection: Connection) -> None:
        super().__init__()
        self._memory, self._connection = memory, connection

    @property
    def closing(self) -> bool:  # type: ignore[override]  # an attribute of the base class
        """Whether it is about to be unloaded."""
        return bool(self._memory.closing[0])

    def begin(self) -> None:
        super().begin()
        self._tell()

    def end(self) -> None:
        super().end()
        self._tell()

    def _tell(self) -> None:
        if not self._connection.ended:  # else its place may be another one's
            self._memory.holds[self._connection.place] = self.holds


class FrontModel(Model[AnyServed]):
    """A model of the engine.

    Args:
        told: what the engine says of it.
        memory: of it.
        connection: to the engine.
        workers: the threads of this front.
        max_queue: see `FrontQueue`.
    """

    batcher: FrontQueue

    def __init__(
        self, told: ServedModel, memory: ModelMemory, connection: Connection, workers: Workers, max_queue: int
    ) -> None:
        self.number = told.number
        self.folder = Path(told.folder)
        self.card = decode_served_card(bytes(told.card))
        self.provider = told.provider
        self.profile = told.profile
        self.batcher = FrontQueue(told.number, memory, connection, workers, max_queue)
        self.usage = FrontUsage(memory, connection)
