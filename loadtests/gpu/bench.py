"""How the GPU script measures: a way is timed and becomes a row, or a row with the reason why it could not be."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter

from msgspec import Struct

from loadtests.gpu.nvml import Gpu, Seen
from loadtests.percentiles import percentile
from loadtests.report import markdown_table

_WARM_UP = 2  # runs after the first: a CUDA graph is captured in one of them
_LEAST = 5  # runs


class Row(Struct, frozen=True):
    """One measurement.

    Attributes:
        part: session, decode or http.
        model: its name.
        way: in which it was done.
        load: batch size, threads or concurrency, in words.
        rate: pictures per second; None where it could not be measured.
        p50, p99: of one run or one request, in ms.
        first: the first run, in ms, in which a provider looks for its kernels.
        utilisation: of the GPU, in per cent of the time.
        memory_mb: the most of the GPU's memory that was taken.
        note: a remark, or why there are no figures.
    """

    part: str
    model: str
    way: str
    load: str
    rate: float | None = None
    p50: float | None = None
    p99: float | None = None
    first: float | None = None
    utilisation: float | None = None
    memory_mb: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Timing:
    """What came of one way: pictures per second, latencies in ms, and what was seen of the GPU meanwhile."""

    rate: float
    p50: float | None
    p99: float | None
    first: float | None = None
    seen: Seen = field(default_factory=Seen)
    note: str = ""


@dataclass
class Bench:
    """What all parts share: the limits, the GPU, and the rows so far.

    Attributes:
        gpu: the one that is used.
        seconds: of each measurement.
        deadline: `monotonic()` after which nothing new is begun.
        on_row: is told of every row.
    """

    gpu: Gpu
    seconds: float
    deadline: float
    on_row: Callable[[Row], None]
    rows: list[Row] = field(default_factory=list)

    def attempt(self, part: str, model: str, way: str, load: str, work: Callable[[], Timing]) -> None:
        """Do a measurement and keep its row. What goes wrong becomes the row's note: the others go on."""
        try:
            self.check_time()
            done = work()
        except Exception as error:  # whatever a provider, a graph or a missing package raises
            self.fail(part, model, way, load, error)
            return
        figures = (done.rate, done.p50, done.p99, done.first, done.seen.utilisation, done.seen.memory_mb)
        self._keep(Row(part, model, way, load, *figures, done.note))

    def check_time(self) -> None:
        """Make sure that there is time left to begin something.

        Raises:
            TimeoutError: there is none.
        """
        if monotonic() > self.deadline:
            raise TimeoutError("left out, the time is up")

    def fail(self, part: str, model: str, way: str, load: str, reason: Exception | str) -> None:
        """Keep a row that has no figures."""
        words = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
        self._keep(Row(part, model, way, load, note=" ".join(words.split())[:200]))

    def measure(self, run: Callable[[], object], pictures: int, threads: int = 1) -> Timing:
        """Time runs of so many pictures, from one thread or from several at once."""
        begin = perf_counter()
        run()
        first = perf_counter() - begin
        for _ in range(_WARM_UP):
            run()
        laps: list[list[float]] = [[] for _ in range(threads)]
        end = perf_counter() + self.seconds

        def loop(times: list[float]) -> None:
            while (start := perf_counter()) < end or len(times) < _LEAST:
                run()
                times.append(perf_counter() - start)

        seen = Seen()
        with self.gpu.watch(seen):
            begin = perf_counter()
            others = [threading.Thread(target=loop, args=(times,)) for times in laps[1:]]
            for thread in others:
                thread.start()
            loop(laps[0])
            for thread in others:
                thread.join()
            passed = perf_counter() - begin
        times = [1000 * lap for times in laps for lap in times]
        return Timing(len(times) * pictures / passed, percentile(times, 50), percentile(times, 99), 1000 * first, seen)

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        self.on_row(row)


def table(rows: Sequence[Row]) -> str:
    """All rows as one Markdown table."""
    header = ["part", "model", "way", "load", "pictures/s", "p50 ms", "p99 ms", "first ms", "GPU %", "GPU MB", "note"]
    return markdown_table(header, [_line(row) for row in rows])


def _line(row: Row) -> list[str]:
    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        row.part,
        row.model,
        row.way,
        row.load,
        shown(row.rate, 1),
        shown(row.p50, 2),
        shown(row.p99, 2),
        shown(row.first, 1),
        shown(row.utilisation, 0),
        shown(row.memory_mb, 0),
        row.note.replace("|", "/"),
    ]
