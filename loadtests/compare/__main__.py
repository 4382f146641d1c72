"""`python -m loadtests.compare`: measures, prints the tables, checks the goals."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click
import msgspec

from loadtests.album import standard_photo
from loadtests.compare import sandbox
from loadtests.compare.environments import ensure
from loadtests.compare.goals import check
from loadtests.compare.process import adopt_orphans, free_port
from loadtests.compare.results import Results, bare_rows, drift, measurements, rows
from loadtests.compare.servers import SERVERS
from loadtests.compare.tables import NOTE, closed_table, open_table, panels, scenario_table
from loadtests.compare.trial import Bench, Plan, rate_of, run_rounds
from loadtests.judge import Condition, exit_if_failed, fail_if_option, judge
from loadtests.outputs import json_option, plot_option
from loadtests.plots import plot
from loadtests.report import Report, ReportError, machine, read_json, report, versions, write_json
from zoo.errors import ZooError

PEERS = tuple(name for name in SERVERS if name != "zooserve")
_QUIET = 0.3  # load average per core above which figures are not to be trusted
_EXAMPLES = """
\b
Examples:
  python -m loadtests.compare                                   everything, three rounds
  python -m loadtests.compare --json out.json --plot out.svg    the same, for the README
  python -m loadtests.compare --peers none --rounds 1           zooserve beside the bare loop only
  python -m loadtests.compare --peers fastapi,litserve --seconds 3 --open-loop none --no-scenarios
  python -m loadtests.compare --pixels both                     peers with Pillow and with OpenCV
  python -m loadtests.compare --show out.json --plot out.svg    the tables and the plot of an earlier run
"""


def _list(value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    return () if words == ("none",) else words


def _peers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = PEERS if value == "all" else _list(value)
    if unknown := set(names) - set(PEERS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the peers are {', '.join(PEERS)}")
    return names


def _counts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    if wrong := [word for word in _list(value) if not word.isdecimal() or int(word) == 0]:
        raise click.BadParameter(f"{wrong[0]}: expected whole numbers from 1, with commas")
    return tuple(int(word) for word in _list(value))


def _rates(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    try:
        for word in _list(value):
            rate_of(word, 1.0)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return _list(value)


@click.command(epilog=_EXAMPLES)
@click.option("--peers", default="all", show_default=True, callback=_peers, help="Names with commas, `all`, or `none`.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 600), help="Of each load.")
@click.option("--warm-up", default=2.0, show_default=True, help="Seconds of load on each server that do not count.")
@click.option("--bare-seconds", default=2.0, show_default=True, help="Of each of the two bare loops around a server.")
@click.option("--concurrency", default="1,8,32", show_default=True, callback=_counts, help="Clients of closed loops.")
@click.option(
    "--open-loop",
    default="50%,80%",
    show_default=True,
    callback=_rates,
    help="Rates of open loops: requests per second, or shares of the bare loop's rate; or `none`.",
)
@click.option("--pixels", type=click.Choice(["fast", "pillow", "both"]), default="fast", show_default=True)
@click.option("--scenarios/--no-scenarios", default=True, show_default=True, help="After a burst; at 2 x capacity.")
@click.option("--deadline-ms", default=500.0, show_default=True, help="Of a request at twice the capacity.")
@click.option("--server-core", default=0, show_default=True, help="The core of the servers and of the bare loops.")
@click.option("--client-core", default=1, show_default=True, help="The core of the client.")
@click.option(
    "--model",
    default=Path("models/mobilenet_v2/1"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder of the exported model.",
)
@json_option()
@plot_option()
@click.option(
    "--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Measure nothing; read this JSON."
)
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep what the servers print here.")
@fail_if_option()
def main(
    peers: tuple[str, ...],
    rounds: int,
    seconds: float,
    warm_up: float,
    bare_seconds: float,
    concurrency: tuple[int, ...],
    open_loop: tuple[str, ...],
    pixels: Literal["fast", "pillow", "both"],
    scenarios: bool,
    deadline_ms: float,
    server_core: int,
    client_core: int,
    model: Path,
    json_path: Path | None,
    plot_path: Path | None,
    show: Path | None,
    logs: Path | None,
    fail_if: tuple[Condition, ...],
) -> None:
    """Compare zooserve with its peers and with the bare loop: one photo, one model, one core for the server.

    One server at a time, on 127.0.0.1, all of them in every round. Each trial lies between two runs of the bare loop
    that does the same work with the same pixels. A server's answer must be the bare loop's before anything counts.
    """
    if show is not None:
        try:
            earlier = read_json(show)
            found = msgspec.convert(earlier.details, Results)
        except (ReportError, msgspec.ValidationError) as error:
            raise click.ClickException(f"{show} cannot be shown: {error}") from error
        _present(found, plot_path, earlier)
        exit_if_failed(judge(fail_if, earlier.measurements))
        return
    plan = Plan(
        rounds=rounds,
        seconds=seconds,
        warm_up=warm_up,
        bare_seconds=bare_seconds,
        concurrency=concurrency,
        open_loop=open_loop,
        scenarios=scenarios,
        deadline_ms=deadline_ms,
        server_cores=(server_core,),
        client_cores=(client_core,),
    )
    _check_machine(plan, model)
    where = machine()
    servers = [SERVERS[name] for name in ("zooserve", *peers)]
    try:
        jpeg = standard_photo()
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    # What needs a network is done; from here on there is none but a loopback.
    problems = {} if sandbox.inside() else ensure(servers)
    if not sandbox.enter("loadtests.compare", sys.argv[1:]):
        problems |= {s.name: "it listens on 0.0.0.0, and there is no sandbox here" for s in servers if not s.loopback}
    for name, problem in problems.items():
        click.echo(f"leaving out {name}: {problem}", err=True)
    adopt_orphans()
    os.sched_setaffinity(0, plan.client_cores)
    kinds = ("fast", "pillow") if pixels == "both" else (pixels,)
    chosen = [(server, kind) for server in servers if server.name not in problems for kind in kinds]
    with TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        path = scratch / "photo.jpg"
        path.write_bytes(jpeg)
        logs = (logs or scratch).resolve()
        logs.mkdir(parents=True, exist_ok=True)
        trials = run_rounds(Bench(plan, path, model.resolve(), scratch, logs, free_port(), _say), chosen)
    results = Results({server.name: server.versions() for server, _ in chosen}, trials)
    settings: dict[str, Any] = {**msgspec.to_builtins(plan), "photo_bytes": len(jpeg)}
    installed = versions(("zooserve", "httptools", "uvloop", "msgspec"))
    common = measurements(trials)
    done = report("compare", sys.argv[1:], where, installed, settings, results, measurements=common)
    if json_path is not None:
        write_json(json_path, done)
    _present(results, plot_path, done)
    exit_if_failed(judge(fail_if, common))


def _present(results: Results, plot_path: Path | None, done: Report) -> None:
    found = rows(results.trials)
    click.echo(f"\n{closed_table(found, bare_rows(results.trials))}\n\n{NOTE}")
    if apart := drift(results.trials):
        click.echo(f"The two bare loops around a trial were at most {max(apart):.0%} apart in rate.")
    if any(row.open for row in found):
        click.echo(f"\n{open_table(found)}")
    if any(row.burst or row.overloads for row in found):
        click.echo(f"\n{scenario_table(found)}")
    click.echo()
    for row in found:
        for problem in row.problems:
            click.echo(f"problem with {row.server} ({row.pixels}), {problem}")
    for goal in check(found):
        click.echo(str(goal))
    if plot_path is not None and found:
        plot(plot_path, panels(found), f"{found[0].pixels} pixels; {done.machine.processor}; {done.date[:10]}")


def _check_machine(plan: Plan, model: Path) -> None:
    if not (model / "model.onnx").is_file():
        raise click.UsageError(f"{model} holds no model.onnx: run `zooserve export mobilenet_v2`, or give --model")
    if sandbox.inside():
        return
    cores = os.sched_getaffinity(0)
    if missing := {*plan.server_cores, *plan.client_cores} - cores:
        raise click.UsageError(f"there is no core {min(missing)}: this process may use {sorted(cores)}")
    if (load := os.getloadavg()[0]) > _QUIET * len(cores):
        click.echo(f"The machine is not quiet (load average {load:.1f}): do not trust these figures.", err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
