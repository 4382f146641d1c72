"""How a step of the GPU script measures: a way is timed and becomes a row; where it cannot be, the row says why."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter, process_time

from msgspec import structs

from loadtests.gpu.nvml import Gpu, Seen
from loadtests.gpu.rows import Row
from loadtests.percentiles import percentile

_WARM_UP = 2  # runs after the first: a CUDA graph is captured in one of them
_LEAST = 5  # runs
_LONGEST_NOTE = 300


@dataclass(frozen=True)
class Timing:
    """What came of one way: images per second, latencies in ms, and what was seen meanwhile; see `Row`."""

    rate: float
    p50: float | None
    p99: float | None
    first: float | None = None
    cores: float | None = None
    seen: Seen = field(default_factory=Seen)
    note: str = ""


@dataclass
class Bench:
    """What the ways of a step share.

    Attributes:
        step: its number.
        gpu: that is used.
        provider, card: of all rows that say nothing else.
        seconds: of each measurement.
        deadline: `monotonic()` after which nothing new is begun.
        send: is given every row.
    """

    step: int
    gpu: Gpu
    provider: str
    card: str
    seconds: float
    deadline: float
    send: Callable[[Row], None]

    def attempt(self, model: str, way: str, load: str, work: Callable[[], Timing]) -> None:
        """Do a measurement and send its row. What goes wrong becomes the row's note: the others go on."""
        if monotonic() > self.deadline:
            self.fail(model, way, load, TimeoutError("left out, the step's time is up"))
            return
        try:
            done = work()
        except Exception as error:  # whatever a provider, a graph or a missing package raises
            self.fail(model, way, load, error)
            return
        self.send(
            structs.replace(
                self._row(model, way, load),
                rate=done.rate,
                p50=done.p50,
                p99=done.p99,
                first=done.first,
                cores=done.cores,
                utilisation=done.seen.utilisation,
                memory_mb=done.seen.memory_mb,
                note=done.note,
            )
        )

    def fail(self, model: str, way: str, load: str, error: Exception) -> None:
        """Send a row that has no figures, with the reason."""
        self.send(structs.replace(self._row(model, way, load), note=reason(error)))

    def check(self, model: str, way: str, look: Callable[[], str]) -> None:
        """Look at something, and send what was seen or went wrong as a row without figures."""
        try:
            note = look()
        except Exception as error:  # as above
            note = reason(error)
        self.send(structs.replace(self._row(model, way, "-"), note=note))

    def off_gpu(self) -> "Bench":
        """The same for what no provider computes."""
        return replace(self, gpu=Gpu(None), provider="-", card="-")

    def measure(self, run: Callable[[], object], images: int, threads: int = 1) -> Timing:
        """Time runs of so many images, from one thread or from several at once."""
        begin = perf_counter()
        run()
        first = perf_counter() - begin
        for _ in range(_WARM_UP):
            run()
        laps: list[list[float]] = [[] for _ in range(threads)]
        failed: list[Exception] = []
        end = perf_counter() + self.seconds

        def loop(times: list[float]) -> None:
            try:
                while not failed and ((start := perf_counter()) < end or len(times) < _LEAST):
                    run()
                    times.append(perf_counter() - start)
            except Exception as error:
                failed.append(error)

        seen = Seen()
        with self.gpu.watch(seen):
            begin, cpu = perf_counter(), process_time()
            others = [threading.Thread(target=loop, args=(times,), daemon=True) for times in laps[1:]]
            for thread in others:
                thread.start()
            loop(laps[0])
            for thread in others:
                thread.join()
            passed, used = perf_counter() - begin, process_time() - cpu
        if failed:
            raise failed[0]
        times = [1000 * lap for times in laps for lap in times]
        p50, p99 = percentile(times, 50), percentile(times, 99)
        return Timing(len(times) * images / passed, p50, p99, 1000 * first, used / passed, seen)

    def _row(self, model: str, way: str, load: str) -> Row:
        return Row(self.step, model, way, load, provider=self.provider, card=self.card)


def reason(error: BaseException) -> str:
    """Say in one line what was raised."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_NOTE]
