"""How a batch is put together: from neighbouring rows of an image buffer, or by concatenation.

The batcher keeps its jobs here while they are ready, and takes batches.
"""

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from time import perf_counter

import numpy as np

from service.arrays import Image, Tensors
from service.engine.job import AnyJob, Jobs
from service.engine.pieces import joined, pieces_of
from service.errors import Reason, RequestError

Run = Callable[[Tensors], Tensors]


class Assembly(ABC):
    """The jobs that are ready, and the batches made of them. The batcher holds its lock for `add` and `next_batch`.

    Attributes:
        prepares: whether a worker prepares a job before it is added. Otherwise a job is added when it is submitted, and
            can be part of the next batch even while all workers are busy.
        quick: answers take so little time that the thread of a run makes them itself.
    """

    prepares = False
    quick = False

    def prepare(self, job: AnyJob) -> None:  # noqa: B027 - nothing to do where jobs come prepared
        """Get a job ready. On a worker thread, without the lock; raises what is wrong with the input."""

    @abstractmethod
    def add(self, job: AnyJob) -> None:
        """Add a job that is ready."""

    @abstractmethod
    def next_batch(self, max_batch: int) -> list[AnyJob]:
        """Take the jobs of the next batch: at most `max_batch` rows, or one job that is larger; [] if none is ready.

        A job that is no longer worth doing is never part of a batch: it is returned alone, and it has failed.
        """

    @abstractmethod
    def compute(self, jobs: Jobs, run: Run) -> Tensors:
        """Run jobs that `next_batch` returned together, or some of them that follow each other."""

    def answer(self, jobs: Jobs, outputs: Tensors, row: int = 0) -> None:
        """Cut the answers of jobs out of the outputs of their run, from a row on."""
        for job in jobs:
            try:
                job.succeed(job.input.answer(outputs, row))
            except Exception as error:
                job.fail(error)
            row += job.input.rows

    def release(self, jobs: Jobs) -> None:  # noqa: B027 - nothing to do where jobs hold nothing
        """Give back what jobs hold whose run is over. On the thread that ran them, without the lock."""


class ImageBuffer:
    """Rows for images. The first free row is taken, for two reasons.

    Images that are prepared at the same time get neighbouring rows, and neighbouring rows are a batch without a copy.
    And as few rows as possible are in use, which stay in the processor's cache.

    Args:
        count: how many images have a row at once.
        spare: rows after those, so that a batch may be padded with whatever lies behind it.
        shape: [H, W, 3] of an image.
        pin: called with the buffer once, to lock its pages for the GPU's copy engine.

    Attributes:
        rows: uint8 [count + spare, H, W, 3].
        lengths: the bytes of the JPEG in each row; 0: it has pixels.
    """

    def __init__(
        self, count: int, spare: int, shape: tuple[int, int, int], pin: Callable[[Image], None] = lambda _: None
    ) -> None:
        # Written to at once, unlike `zeros`: what a model takes is measured without images in it.
        self.rows: Image = np.full((count + spare, *shape), 0, np.uint8)
        pin(self.rows)
        self.lengths = np.zeros(count + spare, np.uint32)
        self._free = list(range(count))
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Take the first free row; None where all are taken."""
        with self._lock:
            return heappop(self._free) if self._free else None

    def free(self, row: int) -> None:
        """Give a row back."""
        with self._lock:
            heappush(self._free, row)


class ImageRows(Assembly):
    """Images are prepared in the rows of a shared buffer; neighbouring rows are a batch without a copy.

    An image that finds no free row gets an array of its own and is run alone.

    Args:
        buffer: where images are prepared.
        sizes: the batch sizes that the graph knows, rising. A smaller batch is padded with the rows behind it, whatever
            they hold: other images, or old ones. Their outputs are not used. Empty: any size.
        jpegs: the runs decode JPEGs.
    """

    prepares = True

    def __init__(self, buffer: ImageBuffer, sizes: Sequence[int] = (), *, jpegs: bool = False) -> None:
        self._buffer = buffer
        self._sizes = sizes
        self._jpegs = jpegs
        self._ready: dict[int, AnyJob] = {}  # by row, in the order in which they became ready
        self._alone = deque[AnyJob]()  # those without a row

    def prepare(self, job: AnyJob) -> None:
        """Decode the image into the first free row, or leave that to the run."""
        row = self._buffer.take()
        if row is None:
            job.image = np.empty_like(self._buffer.rows[0])
            job.input.write(job.image)
        else:
            job.row = row
            self._buffer.lengths[row] = job.input.write(self._buffer.rows[row], jpegs=self._jpegs)

    def add(self, job: AnyJob) -> None:
        """Add an image that was prepared."""
        if job.image is not None:
            self._alone.append(job)
        else:
            self._ready[job.row] = job

    def next_batch(self, max_batch: int) -> list[AnyJob]:
        """Take the image that has been ready for longest, and its neighbours."""
        ready = self._ready
        row = next(iter(ready), None)
        if self._alone and (row is None or self._alone[0].prepared < ready[row].prepared):
            job = self._alone.popleft()
            job.worth_doing()
            return [job]
        if row is None:
            return []
        first, last = row, row + 1
        if ready[row].worth_doing():
            while last - first < max_batch and (job_before := ready.get(first - 1)) and job_before.worth_doing():
                first -= 1
            while last - first < max_batch and (job_behind := ready.get(last)) and job_behind.worth_doing():
                last += 1
        return [ready.pop(row) for row in range(first, last)]

    def compute(self, jobs: Jobs, run: Run) -> Tensors:
        """Run neighbouring rows, padded to the next known size."""
        size, row, image = len(jobs), jobs[0].row, jobs[0].image
        if self._sizes:
            size = self._sizes[bisect_left(self._sizes, size)]
        if image is not None:
            return run({"images": np.stack([image] * size)})
        count = len(jobs)
        pieces = [*pieces_of(self._buffer.rows, self._buffer.lengths, row, row + count, size - count)]
        return run({"images": joined(pieces)})

    def release(self, jobs: Jobs) -> None:
        """Give the rows back."""
        for job in jobs:
            job.image = None
            if job.row >= 0:
                self._buffer.free(job.row)
                job.row = -1


class Concatenation(Assembly):
    """Requests of tensors whose shapes agree are concatenated, first by priority, then in the order in which they came.

    The rows of a request stay together.
    """

    def __init__(self) -> None:
        self._ready: list[AnyJob] = []

    def add(self, job: AnyJob) -> None:
        """Add a request behind those of its priority."""
        insort(self._ready, job, key=lambda other: other.priority)

    def next_batch(self, max_batch: int) -> list[AnyJob]:
        """Take the first request, and those of equal shapes that fit into the same batch. A large one is run alone."""
        if not self._ready:
            return []
        first = self._ready[0]
        if not first.worth_doing():
            return [self._ready.pop(0)]
        batch: list[AnyJob] = []
        left: list[AnyJob] = []
        rows, now = 0, perf_counter()
        for job in self._ready:
            fits = job.input.shapes == first.input.shapes and rows + job.input.rows <= max_batch
            if job is first or (fits and job.worth_doing()):
                job.started = job.prepared = now
                batch.append(job)
                rows += job.input.rows
            else:
                left.append(job)
        self._ready = left
        return batch

    def compute(self, jobs: Jobs, run: Run) -> Tensors:
        """Run the requests' rows. Nothing is known of the graph: the number of rows that it answers with is checked."""
        first = jobs[0].input.tensors
        inputs = first
        if len(jobs) > 1:
            inputs = {name: np.concatenate([job.input.tensors[name] for job in jobs]) for name in first}
        outputs = run(inputs)
        rows = sum(job.input.rows for job in jobs)
        if any(len(value) != rows for value in outputs.values()):
            shapes = {name: value.shape for name, value in outputs.items()}
            raise RequestError(Reason.INTERNAL, f"The graph answered {rows} rows with {shapes}, which are others.")
        return outputs
