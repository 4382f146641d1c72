"""How a batch is put together: from rows of an image buffer, or by concatenation.

The batcher keeps its jobs here while they are ready, and takes batches.
"""

import itertools
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from time import perf_counter

import numpy as np

from service.arrays import Array, Image, Tensors
from service.engine.job import AnyJob, Jobs, Priority
from service.engine.pieces import Jpegs, joined, pieces_of
from service.errors import Reason, RequestError

Run = Callable[[Tensors], Tensors]


class Assembly(ABC):
    """The jobs that are ready, and the batches made of them. The batcher holds its lock for what adds or takes them.

    Attributes:
        prepares: whether a worker prepares a job before it is added. Otherwise a job is added when it is submitted, and
            can be part of the next batch even while all workers are busy.
        quick: answers take so little time that the thread of a run makes them itself.
    """

    prepares = False
    quick = False

    def reserve(self, job: AnyJob) -> bool:  # noqa: ARG002 - nothing is needed
        """Take what it needs to get a job ready. False: there is none, and a `release` will return the job."""
        return True

    def prepare(self, job: AnyJob) -> None:  # noqa: B027 - nothing to do where jobs come prepared
        """Get a job ready. On a worker thread, without the lock; raises what is wrong with the input."""

    def lowest_to_add(self, max_batch: int, until: float) -> int:  # noqa: ARG002 - what comes prepared waits for nothing
        """Return the lowest priority of a job that may be prepared now for the next batch; -1: none may.

        Args:
            max_batch: see `next_batch`.
            until: a time of `time.perf_counter()`, until which the jobs that are ready must be able to wait.
        """
        return -1

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
            except BaseException as error:
                job.fail(error)
            row += job.input.rows

    def release(self, jobs: Jobs) -> list[AnyJob]:  # noqa: ARG002 - jobs hold nothing
        """Give back what jobs hold whose run is over. On the thread that ran them, without the lock.

        Returns:
            Jobs that can be prepared now.
        """
        return []


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
        self._without: list[tuple[int, int, AnyJob]] = []  # a heap of jobs that wait for a row, first by priority
        self._order = itertools.count()
        self._lock = threading.Lock()

    def take(self, job: AnyJob) -> bool:
        """Give a job the first free row, unless it has one. Where all are taken it waits, and this says False."""
        with self._lock:
            if job.row < 0 and self._free:
                job.row = heappop(self._free)
            if job.row < 0:
                heappush(self._without, (job.priority, next(self._order), job))
            return job.row >= 0

    def free(self, row: int) -> AnyJob | None:
        """Give a row back, or to a job that waits, which is returned."""
        with self._lock:
            if not self._without:
                heappush(self._free, row)
                return None
            job = heappop(self._without)[2]
            job.row = row
            return job


class Rows(Assembly):
    """Images lie in rows of memory. A batch takes whatever is ready, first by priority, then as it became ready.

    Args:
        images: uint8 [N, H, W, 3], with as many rows behind those of jobs as the largest size has.
        lengths: of the JPEG in each row; 0: it has pixels.
        sizes: the batch sizes that the graph knows, rising. A smaller batch is padded with the rows behind it, whatever
            they hold: other images, or old ones. Their outputs are not used. Empty: any size.
    """

    def __init__(self, images: Image, lengths: Array, sizes: Sequence[int] = ()) -> None:
        self._images, self._lengths, self._sizes = images, lengths, sizes
        self._ready: tuple[dict[int, AnyJob], ...] = tuple({} for _ in Priority)  # by row, in order of arrival

    def add(self, job: AnyJob) -> None:
        """Add an image that was prepared."""
        self._ready[job.priority][job.row] = job

    def next_batch(self, max_batch: int) -> list[AnyJob]:
        """Take the first images, sorted by row."""
        batch: list[AnyJob] = []
        for ready in self._ready:
            for row in [*ready]:
                if len(batch) == max_batch:
                    break
                if self._worth_doing(ready[row]):
                    batch.append(ready.pop(row))
                elif not batch:  # else it is returned alone the next time
                    return [ready.pop(row)]
        batch.sort(key=lambda job: job.row)
        return batch

    def compute(self, jobs: Jobs, run: Run) -> Tensors:
        """Run rows. On a GPU they are copied to it from where they lie, on a CPU they must follow each other."""
        images, parts = self._images, [(first, end) for first, end, _ in stretches(jobs)]
        if not self._sizes:
            arrays = [images[first:end] for first, end in parts]
            return run({"images": np.concatenate(arrays) if len(arrays) > 1 else arrays[0]})
        padding = self._sizes[bisect_left(self._sizes, len(jobs))] - len(jobs)
        pieces: list[Array | Jpegs] = []
        for first, end in parts:
            last = (first, end) == parts[-1]
            pieces += pieces_of(images, self._lengths, first, end, padding if last else 0)
        return run({"images": joined(pieces)})

    def _worth_doing(self, job: AnyJob) -> bool:
        return job.worth_doing()


class ImageRows(Rows):
    """Images are prepared in the rows of a buffer. Those that find no free row wait for one, without a thread.

    Args:
        buffer: where images are prepared.
        sizes: see `Rows`.
        jpegs: the runs decode JPEGs.
    """

    prepares = True

    def __init__(self, buffer: ImageBuffer, sizes: Sequence[int] = (), *, jpegs: bool = False) -> None:
        super().__init__(buffer.rows, buffer.lengths, sizes)
        self._buffer = buffer
        self._jpegs = jpegs

    def lowest_to_add(self, max_batch: int, until: float) -> int:
        """Return the priority of the first image that is ready, if there is room beside those, and they have time."""
        jobs = [job for ready in self._ready for job in ready.values()]
        if not 0 < len(jobs) < max_batch or min([job.deadline for job in jobs]) < until:
            return -1
        return jobs[0].priority

    def reserve(self, job: AnyJob) -> bool:
        """Take a row for the image."""
        return self._buffer.take(job)

    def prepare(self, job: AnyJob) -> None:
        """Decode the image into its row, or leave that to the run."""
        self._lengths[job.row] = job.input.write(self._images[job.row], jpegs=self._jpegs)

    def release(self, jobs: Jobs) -> list[AnyJob]:
        """Give the rows back, and return the images that have them now."""
        waited: list[AnyJob] = []
        for job in jobs:
            if job.row >= 0:
                row, job.row = job.row, -1
                if (other := self._buffer.free(row)) is not None:
                    waited.append(other)
        return waited


def stretches(jobs: Jobs) -> Iterator[tuple[int, int, int]]:
    """Yield the stretches of neighbouring rows of sorted jobs: first, end, and how many jobs come before it."""
    before = 0
    first = end = -1
    for number, job in enumerate(jobs):
        if job.row != end:
            if number:
                yield first, end, before
            first, before = job.row, number
        end = job.row + 1
    yield first, end, before


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
