"""A graph whose tensors mean nothing to us: its queue, and the folder loaded. Requests of one shape share a run.

`repository` loads it, `predictor` submits to it.
"""

import io
import zipfile
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.batching import Batching
from service.engine.graph import Graph, SessionError
from service.engine.job import Job, Outputs, Priority
from service.engine.profile import CPU_SIZES, ENOUGH, GPU_SIZES, Profile, best_batch
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import Tuning
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.metrics import Metrics
from service.settings import Settings
from zoo.card import ServedTensors
from zoo.store import Contents

Tensors = Mapping[str, npt.NDArray[Any]]
_LARGEST_GOLDEN = 256_000_000  # bytes of golden tensors, unpacked
_GPU_RUNS = 2  # one is copied while another computes
_TOLERANCE = 0.02  # of the largest magnitude: another processor rounds otherwise, and a GPU may compute in TF32


class TensorJob(Job[Outputs]):
    """One request: its rows stay together. Its answer is the graph's outputs for these rows."""

    __slots__ = ("inputs", "rows", "shapes")

    def __init__(self, inputs: Tensors, deadline: float, priority: Priority) -> None:
        rows = len(next(iter(inputs.values())))

        def cut_out(outputs: Outputs, index: int) -> Outputs:  # no method: a job that holds itself would stay for long
            return {name: value[index : index + rows] for name, value in outputs.items()}

        super().__init__(_unprepared, cut_out, deadline, priority)
        self.inputs = inputs
        self.rows = rows
        self.shapes = tuple(value.shape[1:] for value in inputs.values())


class TensorBatcher(Batching):
    """Concatenates the waiting requests whose shapes agree. Takes the arguments of `Batching`, after `compute`."""

    def __init__(self, compute: Callable[[Tensors], Outputs], workers: Workers, **limits: Any) -> None:
        super().__init__(workers, **limits)
        self._run = compute
        self._ready: list[TensorJob] = []  # by priority, then in the order in which they came

    def submit(self, job: Job[Any]) -> None:
        """Take a request in, or refuse it at once; see `check`. What is measured is the cost of a row.

        There is nothing to prepare: it can join the next run from now on, even while all workers are busy.
        """
        assert isinstance(job, TensorJob)  # noqa: S101 - the predictor submits no other
        self.check(job.deadline)
        job.cost = self._cost * job.rows
        self.pending += 1
        with self._lock:
            insort(self._ready, job, key=lambda other: other.priority)
        self._workers.submit(job, self)

    def process(self, _: Job[Any]) -> None:
        """Run batches for as long as a run may start and requests are ready; this one may have been in one already."""
        with self._lock:
            if self._runs >= self.max_runs:
                return  # runs are under way; whoever ends one takes this job along
            self._runs += 1
        self._run_batches()

    def _next_batch(self) -> list[Job[Any]]:
        """Take the request that comes first, and those of its shapes that fit beside it; a large one is run alone."""
        with self._lock:
            if not self._ready:
                self._runs -= 1
                return []
            first = self._ready[0]
            batch: list[Job[Any]] = []
            left: list[TensorJob] = []
            rows, now = 0, perf_counter()
            for job in self._ready:
                if job is first or (job.shapes == first.shapes and rows + job.rows <= self.max_batch):
                    job.started = job.prepared = now
                    batch.append(job)
                    rows += job.rows
                else:
                    left.append(job)
            self._ready = left
            return batch

    def _parts(self, batch: Sequence[Job[Any]]) -> list[list[Job[Any]]]:
        jobs = [job for job in batch if job.worth_doing()]
        return [jobs] if jobs else []

    def _compute(self, jobs: Sequence[Job[Any]]) -> Outputs:
        inputs = [job.inputs for job in jobs if isinstance(job, TensorJob)]
        if len(inputs) == 1:
            return self._run(inputs[0])
        return self._run({name: np.concatenate([each[name] for each in inputs]) for name in inputs[0]})

    def _finish(self, jobs: Sequence[Job[Any]], outputs: Outputs, start: float, end: float) -> None:
        size = sum(job.rows for job in jobs if isinstance(job, TensorJob))
        if any(len(value) != size for value in outputs.values()):
            shapes = {name: value.shape for name, value in outputs.items()}
            fault = RequestError(Reason.INTERNAL, f"The graph answered {size} rows with {shapes}, which are others.")
            for job in jobs:
                job.fail(fault)
            return
        self._observe_batch(size)
        row = 0
        for job in jobs:
            assert isinstance(job, TensorJob)  # noqa: S101 - the predictor submits no other
            job.batch_size, job.run, job.ran = size, start, end
            job.succeed(job.finish(outputs, row))
            row += job.rows


class TensorModel:
    """A graph that is ready to run, with its card and its queue; `golden` is as `Model`'s."""

    def __init__(
        self,
        folder: Path,
        contents: Contents,
        stop: Stop,
        settings: Settings,
        workers: Workers,
        metrics: Metrics,
        device_id: int = 0,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load, measure and warm up a folder's graph; the arguments are those of `Model`.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as asked.
        """
        self.folder = folder
        card = contents.card
        assert isinstance(card, ServedTensors)  # noqa: S101 - `load_folder` looked
        self.card = card
        self.golden = {card.golden.file: contents.files[f"golden/{card.golden.file}"]}
        self.session = Graph(contents.files["model.onnx"], settings.device, device_id, Tuning("HEURISTIC"), stop)
        self.profile = self._profile(workers.size, settings.max_batch)
        self.batcher = TensorBatcher(
            self.session.compute,
            workers,
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            observe_batch=metrics.batch_size.labels(self.card.name).observe,
            on_broken=on_broken,
        )

    def _golden(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Read the golden inputs and outputs.

        Raises:
            SessionError: they are no archive of arrays, or unpack to more than golden tensors may have.
        """
        data = self.golden[self.card.golden.file]
        if fault := _zip_fault(data):
            raise SessionError(f"golden/{self.card.golden.file} {fault}")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: _as_objects(value) for name, value in archive.items()}
        inputs, outputs = (
            {name.removeprefix(kind): value for name, value in arrays.items() if name.startswith(kind)}
            for kind in ("in/", "out/")
        )
        for given, named in ((inputs, self.card.inputs), (outputs, self.card.outputs)):
            if given.keys() != {tensor.name for tensor in named} or not all(len(value) for value in given.values()):
                raise SessionError(
                    f"golden/{self.card.golden.file} proves nothing: it holds rows of {sorted(given) or 'nothing'}, "
                    f"card.json names {[tensor.name for tensor in named]}"
                )
        return inputs, outputs

    def differences(self) -> dict[str, float]:
        """How far the answers to the golden inputs are from the golden outputs, where that is too far, per output.

        Of floats, as a share of the output's largest magnitude; of all else, the share of elements that differ.
        """
        inputs, expected = self._golden()
        answers = self.session.compute(inputs)
        found = {name: _difference(want, answers[name]) for name, want in expected.items()}
        return {name: value for name, value in found.items() if not value <= _TOLERANCE}

    def _profile(self, workers: int, fixed: int) -> Profile:
        """Recall what was measured at an earlier start, or measure now with the golden inputs' first row."""
        key = key_of(self.card.sha256, self.session.provider, workers, fixed)
        profile = recall(key)
        if profile is None:
            sizes = sorted({1, fixed}) if fixed else GPU_SIZES if self.session.on_gpu else CPU_SIZES
            seconds = self._measure(sizes)
            runs = _GPU_RUNS if self.session.on_gpu else workers
            how = "setting" if fixed else "measured"
            profile = Profile(seconds, fixed or best_batch(seconds), runs, self.session.tuning, how)
            remember(key, profile)
        for size in {1, profile.max_batch}:
            self.session.compute(self._rows(size))
        return profile

    def _measure(self, sizes: Sequence[int]) -> dict[int, float]:
        """Seconds of the shorter of two runs, after one to warm up, by batch size; as `profile.measure`."""
        seconds: dict[int, float] = {}
        for size in sizes:
            if seconds and max(seconds.values()) > ENOUGH:
                break
            rows = self._rows(size)
            try:
                self.session.compute(rows)
                seconds[size] = min(self._time(rows) for _ in range(2))
            except MemoryError:
                if not seconds:
                    raise
                break
        self.session.shrink(self._rows(1))
        return seconds

    def _rows(self, size: int) -> dict[str, npt.NDArray[Any]]:
        return {name: np.repeat(value[:1], size, axis=0) for name, value in self._golden()[0].items()}

    def _time(self, rows: Tensors) -> float:
        start = perf_counter()
        self.session.compute(rows)
        return perf_counter() - start


def _as_objects(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Texts as ONNX Runtime takes and gives them; all else as it is."""
    return array.astype(object) if array.dtype.kind == "U" else array


def _zip_fault(data: bytes) -> str:
    """Say why an archive of arrays must not be unpacked, if so: a small one may unpack to any size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        return f"is no archive of NumPy's: {error}"
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        return "is packed in another way than NumPy's archives"
    size = sum(member.file_size for member in members)
    return f"unpacks to {size:,} bytes, more than {_LARGEST_GOLDEN:,}" if size > _LARGEST_GOLDEN else ""


def _unprepared(_: object) -> npt.NDArray[np.uint8]:
    raise NotImplementedError("tensors come as they are")


def _difference(want: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    if want.shape != got.shape:
        return float("inf")
    if want.dtype.kind != "f":
        return float(np.mean(want != got)) if want.size else 0.0
    wanted, found = (np.nan_to_num(x.astype(np.float64)) for x in (want, got))
    largest = max(float(np.abs(wanted).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return float(np.abs(wanted - found).max(initial=0.0)) / largest
