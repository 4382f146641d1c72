"""One soak: its clients and its watch side by side, and what came of them in figures. Called by the command."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from loadtests.client import run
from loadtests.percentiles import percentile
from loadtests.plots import Panel, Point
from loadtests.report import Measurement, Window
from loadtests.soak.load import Clients
from loadtests.soak.watch import Record, Watch
from loadtests.target import Target


class Soak:
    """One soak and what came of it so far.

    Attributes:
        records: of the periods that are over.
        problem: why it ended early; empty where it did not.
    """

    def __init__(self, seconds: float, period: float, tell: Callable[[Record], None]) -> None:
        """Prepare for so many seconds; `tell` is called with the record of each period of so many seconds."""
        self._seconds, self._period, self._tell_user = seconds, period, tell
        self.records: list[Record] = []
        self.problem = ""

    def run(self, everyone: Clients, clients: int, metrics: Target, pid: int | None) -> None:
        """Load and watch, to the end, or until Ctrl+C, or until nothing is answered any more.

        Args:
            everyone: the clients.
            clients: how many of them there are.
            metrics: whose `/metrics` are read.
            pid: of the service's first process on this machine, where it is known.

        Raises:
            OSError: the service cannot be reached.
            ValueError: it does not answer rightly even at first.
            psutil.NoSuchProcess: there is no such process.
        """
        watch = Watch(everyone, metrics, pid, self._period, self._tell)

        async def both() -> None:
            await everyone.learn()
            watching = asyncio.create_task(watch.run())
            await everyone.run(clients, self._seconds)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

        try:
            run(both())
        except KeyboardInterrupt:
            self.problem = "interrupted"
        if everyone.gone:
            self.problem = "the service no longer answers"

    def _tell(self, record: Record) -> None:
        self.records.append(record)
        self._tell_user(record)


def line(record: Record) -> str:
    """Return a record as a line for people."""

    def shown(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:.1f} {unit}"

    return (
        f"{record.end:6.0f} s  {record.rate:7.1f}/s  p50 {shown(record.p50, 'ms')}, p99 {shown(record.p99, 'ms')}  "
        f"{shown(record.resident_mb, 'MB')}  queue {shown(record.queue_depth, '')}  errors {record.errors}"
    )


def measurement(records: Sequence[Record], everyone: Clients, clients: int) -> Measurement:
    """Return the figures that all load tests have in common, with a window for each record."""
    latencies = [1000 * one.latency for one in everyone.answered]
    errors = everyone.errors.total()
    ends = [record.end for record in records[-1:]] + [one.at for one in everyone.answered[-1:]]
    seconds = max(ends, default=0.0)
    starts = [0.0, *(record.end for record in records)]
    return Measurement(
        name="soak",
        clients=clients,
        seconds=seconds,
        requests=len(latencies) + errors,
        errors=errors,
        rate_per_s=len(latencies) / seconds if seconds else 0.0,
        p50_ms=percentile(latencies, 50),
        p90_ms=percentile(latencies, 90),
        p99_ms=percentile(latencies, 99),
        mean_ms=sum(latencies) / len(latencies) if latencies else None,
        max_ms=max(latencies, default=None),
        windows=[_window(record, record.end - start) for start, record in zip(starts, records, strict=False)],
    )


def _window(record: Record, seconds: float) -> Window:
    answered = round(record.rate * seconds)
    return Window(seconds, answered + record.errors, record.errors, record.rate, p50_ms=record.p50, p99_ms=record.p99)


def panels(records: Sequence[Record]) -> list[Panel]:
    """Three diagrams over the minutes: memory, latency, rate and errors."""

    def curve(values: Sequence[float | None]) -> list[Point]:
        return [Point(r.end / 60, v) for r, v in zip(records, values, strict=True) if v is not None]

    memory = {"resident memory": curve([r.resident_mb for r in records])}
    latency = {"p50": curve([r.p50 for r in records]), "p99": curve([r.p99 for r in records])}
    rate = {"answers per second": curve([r.rate for r in records]), "errors": curve([r.errors for r in records])}
    return [
        Panel("Resident memory of all processes", "minutes", "MB", memory, "linear"),
        Panel("Latency", "minutes", "ms", latency, "linear"),
        Panel("Answers per second, and errors per record", "minutes", "", rate, "linear"),
    ]
