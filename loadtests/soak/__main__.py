"""`python -m loadtests.soak`: loads a service for long, watches it, and judges."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import psutil
from msgspec import Struct

from loadtests.album import album
from loadtests.compare.process import ServerError
from loadtests.judge import Condition, exit_if_failed, fail_if_option
from loadtests.judge import judge as judge_conditions
from loadtests.options import json_option, plot_option, say
from loadtests.plots import plot
from loadtests.report import TestedServer, machine, write_report
from loadtests.served import served
from loadtests.serving import serving
from loadtests.soak.judge import Finding, judge
from loadtests.soak.load import Clients, Mix
from loadtests.soak.run import Soak, line, measurement, panels
from loadtests.soak.watch import Record
from loadtests.target import Target, target_options
from zoo.errors import ZooError

_PACKAGES = ("zooserve", "bentoml", "starlette", "uvicorn", "uvloop", "onnxruntime", "onnxruntime-gpu")
_EXAMPLES = """
\b
Examples:
  python -m loadtests.soak                                             20 minutes, on a server of its own
  python -m loadtests.soak --minutes 5 --json soak.json --plot soak.svg
  python -m loadtests.soak --url http://127.0.0.1:3000                 on a server that is running
  python -m loadtests.soak --url https://vision.example.org/zoo --remote --ca-file ca.pem --minutes 600
  python -m loadtests.soak --minutes 60 --clients 32 --rubbish 0.1 --hang-ups 0.05
"""


class Results(Struct, frozen=True):
    """What JSON has as details: findings, every period, what was wrong how often, and why it ended early, if it did."""

    findings: list[Finding]
    records: list[Record]
    errors: dict[str, int]
    problem: str


@click.command(epilog=_EXAMPLES)
@target_options(url=None, schemes="http or https", task="every one that the server has")
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.05), help="Of load.")
@click.option("--clients", default=8, show_default=True, type=click.IntRange(1, 1000), help="At a time.")
@click.option("--rubbish", default=0.03, show_default=True, type=click.FloatRange(0, 1), help="Share of the requests.")
@click.option("--hang-ups", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="Share of the requests.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Of an answer, in s.")
@click.option("--period", default=10.0, show_default=True, type=click.FloatRange(0.5), help="Of a record, in s.")
@click.option(
    "--images",
    "--photos",
    "images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder.  [default: sample photos from 320 x 240 to 3000 x 2000 pixels]",
)
@click.option(
    "--models",
    default=Path("models"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Of a server of its own, where no --url is given.",
)
@click.option("--pid", type=int, help="Of the first process at --url, if on this machine.  [default: /metrics says]")
@click.option("--metrics-url", help="Whose /metrics to read, where those at --url cannot be asked.")
@json_option()
@plot_option()
@fail_if_option()
def main(
    *,
    target: Target | None,
    minutes: float,
    clients: int,
    rubbish: float,
    hang_ups: float,
    timeout: float,
    period: float,
    images: Path | None,
    models: Path,
    pid: int | None,
    metrics_url: str | None,
    json_path: Path | None,
    plot_path: Path | None,
    fail_if: tuple[Condition, ...],
) -> None:
    """Load the service with everything at once, for long, and judge whether it stays well.

    All tasks that the server has, with images of many sizes, a few per cent rubbish, and some clients that hang up.
    Every answer is compared with the first. Exits with 1 where a goal is missed, with 3 where a --fail-if applies.
    """
    if target is None and (pid is not None or metrics_url):
        raise click.UsageError("--pid and --metrics-url belong to --url")
    if target is not None and target.grpc:
        raise click.UsageError("the soak speaks http and https")
    where = machine()
    soak = Soak(60 * minutes, period, lambda record: say(line(record)))
    asked: list[Target] = []
    try:
        photos = album(images) if images else []
        with _service(target, pid, models) as (found, process):
            metrics = found
            if metrics_url:
                metrics = Target.parse(metrics_url.removesuffix("/metrics"), remote=True, ca_file=found.ca_file)
            asked = served(found).choose_each(found)
            everyone = Clients(asked, Mix(rubbish, hang_ups), timeout, photos)
            soak.run(everyone, clients, metrics, process)
    except (ServerError, OSError, ValueError, psutil.NoSuchProcess, ZooError) as error:
        if not soak.records:
            raise click.ClickException(str(error)) from error
        soak.problem = str(error)
    findings = judge(soak.records, everyone.answered, everyone.errors)
    measured = measurement(soak.records, everyone, clients)
    tested = None
    if target is not None:
        tasks, names = (", ".join(words) for words in ([one.task for one in asked], [one.model for one in asked]))
        tested = TestedServer(target.url, target.scheme, tasks, names)
    settings = {
        "minutes": minutes,
        "clients": clients,
        "rubbish": rubbish,
        "hang_ups": hang_ups,
        "timeout": timeout,
        "period": period,
        "images": str(images or "samples"),
    }
    details = Results(findings, soak.records, dict(everyone.errors), soak.problem)
    write_report(json_path, "soak", where, _PACKAGES, settings, details, target=tested, measurements=[measured])
    if plot_path is not None:
        plot(plot_path, panels(soak.records), f"{where.processor}, {where.cores} cores, {clients} clients")
    if soak.problem:
        click.echo(f"It ended early: {soak.problem}")
    for finding in findings:
        click.echo(str(finding))
    exit_if_failed(judge_conditions(fail_if, [measured]))
    if soak.problem or any(finding.good is False for finding in findings):
        sys.exit(1)


@contextmanager
def _service(target: Target | None, pid: int | None, models: Path) -> Iterator[tuple[Target, int | None]]:
    if target is not None:
        yield target, pid
        return
    with TemporaryDirectory(prefix="soak-") as folder:
        say("starting the service")
        with serving(Path(folder) / "log", {"ZOOSERVE_MODELS": str(models)}) as (address, process):
            yield Target.parse(f"http://{address.authority}"), process


if __name__ == "__main__":
    main()
