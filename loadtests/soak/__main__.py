"""`python -m loadtests.soak`: loads a service for long, watches it, and judges."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import psutil
from msgspec import Struct

from loadtests.client import Server, run
from loadtests.compare.process import ServerError
from loadtests.plots import Panel, Point, plot
from loadtests.report import Report, machine, report, versions, write_json
from loadtests.serving import serving
from loadtests.soak.judge import Finding, judge
from loadtests.soak.load import Crowd, Mix
from loadtests.soak.watch import Record, Watch
from loadtests.target import Target
from zoo.errors import ZooError

_PACKAGES = ("zooserve", "bentoml", "starlette", "uvicorn", "uvloop", "onnxruntime", "onnxruntime-gpu")
_EXAMPLES = """
\b
Examples:
  python -m loadtests.soak                                             20 minutes, on a server of its own
  python -m loadtests.soak --minutes 5 --json soak.json --plot soak.svg
  python -m loadtests.soak --url http://127.0.0.1:3000 --pid 4711      on a server that is running
  python -m loadtests.soak --minutes 60 --clients 32 --rubbish 0.1 --hang-ups 0.05
"""


class Results(Struct, frozen=True):
    """What JSON reports: the findings, every period, what was wrong how often, and why it ended early, if it did."""

    findings: list[Finding]
    records: list[Record]
    errors: dict[str, int]
    problem: str


@click.command(epilog=_EXAMPLES)
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.05), help="Of load.")
@click.option("--clients", default=8, show_default=True, type=click.IntRange(1, 1000), help="At a time.")
@click.option("--rubbish", default=0.03, show_default=True, type=click.FloatRange(0, 1), help="Share of the requests.")
@click.option("--hang-ups", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="Share of the requests.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Of an answer, in s.")
@click.option("--period", default=10.0, show_default=True, type=click.FloatRange(0.5), help="Of a record, in s.")
@click.option("--models", default=Path("models"), show_default=True, type=click.Path(path_type=Path))
@click.option("--url", help="Of a service that is running.  [default: one of its own]")
@click.option("--pid", type=int, help="Of that service's first process, for its memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Draw to .svg or .png.")
def main(
    minutes: float,
    clients: int,
    rubbish: float,
    hang_ups: float,
    timeout: float,
    period: float,
    models: Path,
    url: str | None,
    pid: int | None,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Load the service with everything at once, for long, and judge whether it stays well.

    Classification, detection and segmentation of photos from 320 x 240 to 3000 x 2000, a few per cent rubbish, and
    some clients that hang up. Every answer is compared with the first. Exits with 1 where a goal is missed.
    """
    if url is None and pid is not None:
        raise click.UsageError("--pid belongs to --url")
    where = machine()
    soak = Soak(clients, 60 * minutes, Mix(rubbish, hang_ups), timeout, period)
    try:
        with _service(url, pid, models) as (address, process):
            soak.run(address, process)
    except (ServerError, OSError, ValueError, psutil.NoSuchProcess, ZooError) as error:
        if soak.crowd is None or not soak.records:
            raise click.ClickException(str(error)) from error
        soak.problem = str(error)
    if soak.crowd is None:
        raise click.Abort
    findings = judge(soak.records, soak.crowd.asked, soak.crowd.errors)
    results = Results(findings, soak.records, dict(soak.crowd.errors), soak.problem)
    settings = {
        "minutes": minutes,
        "clients": clients,
        "rubbish": rubbish,
        "hang_ups": hang_ups,
        "timeout": timeout,
        "period": period,
    }
    done = report("soak", sys.argv[1:], where, versions(_PACKAGES), settings, results)
    if json_path is not None:
        write_json(json_path, done)
    if plot_path is not None:
        plot(plot_path, panels(soak.records), _caption(done, clients))
    if soak.problem:
        click.echo(f"It ended early: {soak.problem}")
    for finding in findings:
        click.echo(str(finding))
    if soak.problem or any(finding.good is False for finding in findings):
        sys.exit(1)


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


class Soak:
    """One soak and what came of it so far."""

    def __init__(self, clients: int, seconds: float, mix: Mix, timeout: float, period: float) -> None:
        self._clients, self._seconds, self._mix = clients, seconds, mix
        self._timeout, self._period = timeout, period
        self.crowd: Crowd | None = None
        self.records: list[Record] = []
        self.problem = ""

    def run(self, address: Server, pid: int | None) -> None:
        """Load and watch, to the end, or until Ctrl+C, or until nothing is answered any more."""
        crowd = self.crowd = Crowd(address, self._mix, self._timeout)

        async def both() -> None:
            await crowd.learn()
            watching = asyncio.create_task(Watch(crowd, address, pid, self._period, self._tell).run())
            await crowd.run(self._clients, self._seconds)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

        try:
            run(both())
        except KeyboardInterrupt:
            self.problem = "interrupted"
        if crowd.gone:
            self.problem = "the service no longer answers"

    def _tell(self, record: Record) -> None:
        self.records.append(record)
        click.echo(_line(record), err=True)


@contextmanager
def _service(url: str | None, pid: int | None, models: Path) -> Iterator[tuple[Server, int | None]]:
    if url is not None:
        yield Target.parse(url), pid
        return
    with TemporaryDirectory(prefix="soak-") as folder:
        click.echo("starting the service", err=True)
        with serving(Path(folder) / "log", {"ZOOSERVE_MODELS": str(models)}) as found:
            yield found


def _line(record: Record) -> str:
    def shown(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:.1f} {unit}"

    return (
        f"{record.end:6.0f} s  {record.rate:7.1f}/s  p50 {shown(record.p50, 'ms')}, p99 {shown(record.p99, 'ms')}  "
        f"{shown(record.resident_mb, 'MB')}  queue {shown(record.queue_depth, '')}  errors {record.errors}"
    )


def _caption(done: Report, clients: int) -> str:
    return f"{done.machine.processor}, {done.machine.cores} cores, {clients} clients; {done.date[:10]}"


if __name__ == "__main__":
    main()
