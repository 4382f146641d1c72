"""`python -m loadtests.loadgen`: runs LoadGen's scenarios, or searches the highest rate in bounds."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from loadtests.loadgen.bench import Bench, Target, TargetError, bench
from loadtests.loadgen.certify import certify
from loadtests.loadgen.sut import SenderError
from loadtests.loadgen.tables import certified, table, verdict
from loadtests.loadgen.trial import Scenario, Spec, Trial, TrialError
from loadtests.report import machine, report, versions, write_json
from zoo.errors import ZooError

_PACKAGES = ("mlcommons-loadgen", "zooserve", "bentoml", "onnxruntime", "onnxruntime-gpu", "httptools", "uvloop")
_EXAMPLES = """
\b
Examples, with `make serve` running:
  python -m loadtests.loadgen singlestream
  python -m loadtests.loadgen server --qps 50 --bound-ms 100 --seconds 60
  python -m loadtests.loadgen offline --task detect --photos ~/photos --senders 2
  python -m loadtests.loadgen certify --bound-ms 50 --seconds 60 --json certificate.json
  python -m loadtests.loadgen certify --model efficientnet_lite0 --bound-ms 15 --logs loadgen-logs
"""


class Found(msgspec.Struct, frozen=True):
    """What JSON reports: the model that answered, the photos, the tests, and the rate that was certified."""

    model: str
    version: str
    photos: list[str]
    trials: list[Trial]
    certified: float | None


Option = Callable[[Any], Any]  # what `click.option` makes
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_COMMON = (
    click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the service, on this machine."),
    click.option("--task", default="classify", show_default=True, type=click.Choice(["classify", "detect", "segment"])),
    click.option("--model", default="", help="A model's name.  [default: the task's]"),
    click.option("--photos", type=_FOLDER, help="A folder of photos.  [default: the zoo's samples]"),
    click.option("--connections", default=256, show_default=True, type=click.IntRange(1), help="Open at a time."),
    click.option("--senders", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that send."),
    click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Of an answer, in s."),
    click.option("--json", "json_path", type=_FILE, help="Write all figures here."),
    click.option("--markdown", "markdown_path", type=_FILE, help="Write the table here as well."),
    click.option("--logs", type=_FOLDER, help="Keep what LoadGen writes here."),
)
_SECONDS = click.option(
    "--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Of a test, at least."
)
_BOUND = click.option("--bound-ms", default=100.0, show_default=True, type=click.FloatRange(0.1), help="Of the p99.")
_QPS = click.option("--qps", type=click.FloatRange(0.1), help="Queries per second.  [default: from a short probe]")


def _queries(default: int) -> Option:
    return click.option(
        "--min-queries", default=default, show_default=True, type=click.IntRange(1), help="Of a test, at least."
    )


def _options(*more: Option) -> Option:
    """Give a command its own options and then those that all have."""

    def add(command: Any) -> Any:
        for option in reversed((*more, *_COMMON)):
            command = option(command)
        return command

    return add


@click.group(epilog=_EXAMPLES)
def main() -> None:
    """Load a running service with MLPerf LoadGen.

    LoadGen decides when a query is due and measures from that moment to the answer. Its verdict on a test is VALID or
    INVALID; here a test counts only if every answer was right, besides. All commands exit with 1 where it does not.
    """


@main.command()
@_options(_SECONDS, _queries(100))
def singlestream(seconds: float, min_queries: int, **common: Any) -> None:
    """One query after the other: the latency of a single user."""
    # Twice the rate of the probe: LoadGen prepares queries for the time, and a quick service must not run out of them.
    _run("SingleStream", None, (1, 2.0), (seconds, min_queries), **common)


@main.command()
@_options(_QPS, _BOUND, _SECONDS, _queries(1000))
def server(qps: float | None, bound_ms: float, seconds: float, min_queries: int, **common: Any) -> None:
    """Queries at random moments (Poisson arrivals), with a bound on their p99. Without --qps, half the capacity."""
    _run("Server", qps, (8, 0.5), (seconds, min_queries), bound_ms, **common)


@main.command()
@_options(_QPS, _SECONDS, _queries(1000))
def offline(qps: float | None, seconds: float, min_queries: int, **common: Any) -> None:
    """All queries at once: the throughput. --qps is what to expect; it says how many queries fill the time."""
    _run("Offline", qps, (32, 1.0), (seconds, min_queries), **common)


@main.command("certify")
@_options(
    _QPS,
    _BOUND,
    _SECONDS,
    _queries(1000),
    click.option(
        "--search-seconds", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Of a test of the search."
    ),
    click.option("--resolution", default=0.02, show_default=True, type=click.FloatRange(0.001, 1), help="Of the rate."),
    click.option(
        "--tries", default=2, show_default=True, type=click.IntRange(1, 10), help="Tests that fail before a rate does."
    ),
    click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Begin no test later."),
)
def certify_(
    qps: float | None,
    bound_ms: float,
    seconds: float,
    min_queries: int,
    search_seconds: float,
    resolution: float,
    tries: int,
    minutes: float,
    **common: Any,
) -> None:
    """Search the highest rate of Poisson arrivals whose p99 stays under the bound.

    Bisection over short tests from --qps on, then a test of --seconds at the rate that was found: it must be valid, or
    the next lower rate is tried.
    """

    def search(at: Bench) -> tuple[list[Trial], str, float | None]:
        rate = qps or 0.8 * at.probe(8)
        spec = Spec("Server", rate, bound_ms, seconds=seconds, min_queries=min_queries, timeout=at.target.timeout)
        found = certify(
            at.conduct,
            spec,
            search_seconds=search_seconds,
            resolution=resolution,
            tries=tries,
            limit=60 * minutes,
        )
        return found.trials, certified(found), found.proof.spec.target_qps if found.proof else None

    _present(search, **common)


def _run(
    scenario: Scenario,
    qps: float | None,
    probe: tuple[int, float],
    least: tuple[float, int],
    bound_ms: float = 100.0,
    **common: Any,
) -> None:
    """Run one test, at `qps`, or at a share of what so many clients reach."""

    def once(at: Bench) -> tuple[list[Trial], str, float | None]:
        clients, share = probe
        rate = qps or share * at.probe(clients)
        spec = Spec(scenario, rate, bound_ms, seconds=least[0], min_queries=least[1], timeout=at.target.timeout)
        trial = at.conduct(spec)
        return [trial], verdict(trial), rate if trial.valid else None

    _present(once, **common)


def _present(
    work: Callable[[Bench], tuple[list[Trial], str, float | None]],
    json_path: Path | None,
    markdown_path: Path | None,
    **target: Any,
) -> None:
    """Do the work on the service, print and write what came of it."""
    where = machine()
    try:
        with bench(Target(**target), _say) as at:
            trials, words, valid = work(at)
            found = Found(at.model, at.version, [photo.name for photo in at.photos], trials, valid)
    except (TargetError, SenderError, TrialError, ValueError, ZooError) as error:
        raise click.ClickException(str(error)) from error
    text = f"{table(trials)}\n\n{words}"
    if len(trials) == 1 or valid:
        text += f"\n\n{_quoted(trials[-1])}"
    click.echo(f"\n{text}")
    if markdown_path is not None:
        markdown_path.parent.mkdir(parents=True, exist_ok=True)
        markdown_path.write_text(f"{text}\n", encoding="utf-8")
    if json_path is not None:
        settings = {name: str(value) for name, value in target.items()}
        write_json(json_path, report("loadgen", sys.argv[1:], where, versions(_PACKAGES), settings, found))
    if valid is None:
        sys.exit(1)


def _quoted(trial: Trial) -> str:
    """The first part of LoadGen's own summary."""
    head = trial.summary.text.partition("Additional Stats")[0].rstrip("=\n ")
    return "\n".join(f"    {line}".rstrip() for line in head.splitlines())


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
