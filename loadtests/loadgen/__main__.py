"""`python -m loadtests.loadgen`: runs LoadGen's scenarios, finds the capacity in bounds, logs answers for `eval`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import click
from msgspec import Struct, structs

from loadtests.judge import Condition, exit_if_failed, judge
from loadtests.loadgen import options
from loadtests.loadgen.accuracy import log_answers, some_images
from loadtests.loadgen.bench import Bench, bench
from loadtests.loadgen.capacity import Capacity, Search, find_capacity
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.sut import SenderError
from loadtests.loadgen.tables import found_capacity, measured, not_quiet, table, verdict
from loadtests.loadgen.trial import Trial, TrialError
from loadtests.options import say, write_text
from loadtests.report import Measurement, machine, write_report
from loadtests.target import Target
from zoo.errors import ZooError

_PACKAGES = ("mlcommons-loadgen", "zooserve", "bentoml", "onnxruntime", "onnxruntime-gpu", "httptools", "uvloop")
_EXAMPLES = """
\b
Examples, with `make serve` running:
  python -m loadtests.loadgen singlestream
  python -m loadtests.loadgen multistream --images-per-query 8
  python -m loadtests.loadgen server --qps 50 --bound-ms 100 --seconds 60
  python -m loadtests.loadgen offline --task detect --images ~/photos --senders 2
  python -m loadtests.loadgen capacity --bound-ms 50 --json capacity.json
  python -m loadtests.loadgen server --user-conf user.conf
  python -m loadtests.loadgen accuracy --model lenet5 --data digits --logs answers
\b
On another machine, behind TLS, a path prefix and a key (ZOOSERVE_API_KEY):
  python -m loadtests.loadgen capacity --url https://vision.example.org/vision --remote --ca-file ca.pem
  python -m loadtests.loadgen server --url grpc://127.0.0.1:8001 --model mobilenet_v2
"""


class Found(Struct, frozen=True):
    """What JSON has as details: the tests, and what `capacity` found."""

    trials: Sequence[Trial]
    capacity: Capacity | None = None


class Outcome(Struct, frozen=True):
    """What a command prints and writes; whether the tests count; the measurements."""

    found: Found
    words: str
    good: bool
    measurements: list[Measurement]


@click.group(epilog=_EXAMPLES)
def main() -> None:
    """Load a running server with LoadGen, the load generator of MLPerf.

    LoadGen decides when a query is due and measures from that moment to the answer. Its verdict on a test is VALID or
    INVALID; here a test counts only if every answer was right, besides. Commands that measure exit with 1 where it does
    not. Nothing here is a result of MLPerf's, which MLCommons alone reviews and publishes.
    """


@main.command()
@options.measuring(options.SECONDS, options.queries(100))
def singlestream(target: Target, confs: tuple[str, ...], seconds: float, min_queries: int, **common: Any) -> None:
    """One query after the other: the latency of a single user."""
    with _errors():
        spec = options.spec_of("SingleStream", None, confs, target.model, seconds=seconds, min_queries=min_queries)
        # Twice the rate of the probe: LoadGen prepares queries for the time, and must not run out of them.
        _once(spec, (1, 2.0), target, common)


@main.command()
@options.measuring(
    options.SECONDS,
    options.queries(662),
    click.option("--images-per-query", default=8, show_default=True, type=click.IntRange(1), help="Sent at once."),
)
def multistream(
    target: Target,
    confs: tuple[str, ...],
    seconds: float,
    min_queries: int,
    images_per_query: int,
    **common: Any,
) -> None:
    """Several images at once, and the next ones when all are answered: a user with several cameras.

    Latencies are of a query: until the last of its images is answered.
    """
    with _errors():
        least = {"seconds": seconds, "min_queries": min_queries, "images_per_query": images_per_query}
        spec = options.spec_of("MultiStream", None, confs, target.model, **least)
        _once(spec, (spec.images_per_query, 2.0 / spec.images_per_query), target, common)


@main.command()
@options.measuring(options.QPS, options.BOUND, options.SECONDS, options.queries(1000))
def server(
    target: Target,
    confs: tuple[str, ...],
    qps: float | None,
    bound_ms: float,
    seconds: float,
    min_queries: int,
    **common: Any,
) -> None:
    """Queries at random moments (Poisson arrivals), with a bound on their p99. Without --qps, half the capacity."""
    with _errors():
        values = {"bound_ms": bound_ms, "seconds": seconds, "min_queries": min_queries}
        _once(options.spec_of("Server", qps, confs, target.model, **values), (8, 0.5), target, common)


@main.command()
@options.measuring(options.QPS, options.SECONDS, options.queries(1000))
def offline(
    target: Target, confs: tuple[str, ...], qps: float | None, seconds: float, min_queries: int, **common: Any
) -> None:
    """All queries at once: the throughput. --qps is what to expect; it says how many queries fill the time."""
    with _errors():
        spec = options.spec_of("Offline", qps, confs, target.model, seconds=seconds, min_queries=min_queries)
        _once(spec, (32, 1.0), target, common)


@main.command()
@options.measuring(
    options.QPS,
    options.BOUND,
    click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Of a full test."),
    options.queries(1000),
    click.option(
        "--search-seconds", default=8.0, show_default=True, type=click.FloatRange(0.1), help="Of a short test."
    ),
    click.option("--resolution", default=0.03, show_default=True, type=click.FloatRange(0.005, 1), help="Of the rate."),
    click.option("--tests", default="3", show_default=True, type=click.Choice(["1", "3", "5", "7"]),
                 help="Of a rate, of which the majority decides."),
    click.option("--repeats", default=3, show_default=True, type=click.IntRange(0),
                 help="Of tests of one rate that were disturbed."),
    click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.1), help="Begin no test later."),
)  # fmt: skip
def capacity(
    target: Target,
    confs: tuple[str, ...],
    qps: float | None,
    bound_ms: float,
    seconds: float,
    min_queries: int,
    search_seconds: float,
    resolution: float,
    tests: str,
    repeats: int,
    minutes: float,
    **common: Any,
) -> None:
    """Find the highest rate of Poisson arrivals whose p99 stays under the bound.

    Short tests search it, from --qps or from what a probe reaches. Then tests of --seconds decide: a rate is kept if
    most of its tests are VALID and every answer is right, and the next higher rate is not. Tests during which the
    machine did something else are repeated instead of counted.
    """
    end = monotonic() + 60 * minutes
    values = {"bound_ms": bound_ms, "seconds": seconds, "min_queries": min_queries}
    with _errors():
        spec = options.spec_of("Server", qps, confs, target.model, **values)

        def find(at: Bench) -> Outcome:
            search = Search(search_seconds, resolution, int(tests), repeats, at.setup.limits)
            found = find_capacity(at.conduct, _at_rate(spec, at, (16, 0.9)), search, lambda: monotonic() > end)
            words = found_capacity(found, at.setup.limits)
            measurements = [measured("capacity", found.proofs, searched=True)] if found.proofs else []
            return Outcome(Found(found.trials, found), words, found.rate is not None, measurements)

        _present(find, target, common)


@main.command()
@options.asked(
    click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
                 help="A folder of images, of which `zooserve eval` knows the truth."),
    click.option("--logs", required=True, type=options.FOLDER, help="Where LoadGen writes its accuracy log."),
    click.option("--limit", type=click.IntRange(1), help="Only so many images, at even distances."),
    click.option("--connections", default=8, show_default=True, type=click.IntRange(1), help="Open at a time."),
)  # fmt: skip
def accuracy(data: Path, logs: Path, limit: int | None, target: Target, **common: Any) -> None:
    """Ask about every image of a folder once (LoadGen's AccuracyOnly) and log the answers for `zooserve eval`."""
    with _errors():
        images = some_images(data, limit)
        log, outcomes, at = log_answers(target, images, logs, common, say)
    wrong = {name: count for name, count in outcomes.items() if name != "200"}
    click.echo(f"{outcomes.get('200', 0)} of {len(images)} images were answered by {at.model}; the log is {log}")
    click.echo(f"zooserve eval {at.model} {data} --answers {log}")
    if wrong:
        raise click.ClickException(f"not answered: {', '.join(f'{count} x {name}' for name, count in wrong.items())}")


def _once(spec: Spec, probe: tuple[int, float], target: Target, common: dict[str, Any]) -> None:
    """Run one test, at the spec's rate, or at a share of what so many clients reach."""

    def once(at: Bench) -> Outcome:
        trial = at.conduct(_at_rate(spec, at, probe))
        words = "\n".join([verdict(trial), *not_quiet([trial], at.setup.limits), "", _quoted(trial)])
        return Outcome(Found([trial]), words, trial.valid, [measured(spec.scenario.lower(), [trial])])

    _present(once, target, common)


def _at_rate(spec: Spec, at: Bench, probe: tuple[int, float]) -> Spec:
    clients, share = probe
    return structs.replace(spec, target_qps=spec.target_qps or share * at.probe(clients), timeout=at.setup.timeout)


def _present(work: Callable[[Bench], Outcome], target: Target, common: dict[str, Any]) -> None:
    """Do the work on the server, print and write what came of it."""
    where = machine()
    with bench(target, options.setup_of(common), say) as at:
        done = work(at)
    text = f"{table(done.found.trials)}\n\n{done.words}" if done.found.trials else done.words
    click.echo(f"\n{text}")
    write_text(common["markdown_path"], text)
    settings, path = _settings(done, common), common["json_path"]
    write_report(
        path, "loadgen", where, _PACKAGES, settings, done.found, target=at.tested, measurements=done.measurements
    )
    conditions: Sequence[Condition] = common["fail_if"]
    exit_if_failed(judge(conditions, done.measurements))
    if not done.good:
        sys.exit(1)


def _settings(done: Outcome, common: dict[str, Any]) -> dict[str, Any]:
    spec = done.found.trials[0].spec if done.found.trials else None
    settings: dict[str, Any] = {name: common[name] for name in ("connections", "senders", "timeout", "quiet")}
    settings |= {"images": str(common["images"] or "samples"), "options": dict(common["options"])}
    if spec is not None:
        settings |= {"scenario": spec.scenario, "bound_ms": spec.bound_ms, "percentile": spec.percentile}
        if spec.scenario == "MultiStream":
            settings["images_per_query"] = spec.images_per_query
    return settings


@contextmanager
def _errors() -> Iterator[None]:
    """Say what went wrong in a sentence."""
    try:
        yield
    except (SenderError, TrialError, ValueError, ZooError) as error:
        raise click.ClickException(str(error)) from error


def _quoted(trial: Trial) -> str:
    """The first part of LoadGen's own summary, without its advice: ours stands above."""
    head = trial.summary.text.partition("Additional Stats")[0].partition("Recommendations:")[0]
    head = head.partition("Early Stopping Result:")[0].rstrip("=\n ")
    return "\n".join(f"    {line}".rstrip() for line in head.splitlines())


if __name__ == "__main__":
    main()
