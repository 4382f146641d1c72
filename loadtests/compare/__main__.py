"""`python -m loadtests.compare`: measures, prints the tables, checks the goals."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click
import msgspec

from loadtests.album import standard_photo
from loadtests.compare import sandbox
from loadtests.compare.environments import ensure
from loadtests.compare.goals import check, check_machine
from loadtests.compare.machine import Sweep, Task, default_models, estimate, run_machine
from loadtests.compare.options import check_mode, peers_of, rates
from loadtests.compare.process import adopt_orphans, free_port
from loadtests.compare.results import Results, bare_rows, drift, measurements, rows
from loadtests.compare.servers import SERVERS, Server
from loadtests.compare.tables import (
    MACHINE_NOTE,
    NOTE,
    closed_table,
    machine_tables,
    open_table,
    panels,
    scenario_table,
)
from loadtests.compare.trial import Bench, Plan, run_rounds
from loadtests.judge import Condition, exit_if_failed, fail_if_option, judge
from loadtests.options import counts, json_option, plot_option, say
from loadtests.plots import plot
from loadtests.report import Report, ReportError, machine, read_json, report, versions, write_json
from zoo.errors import ZooError

_STORE = Path("models")
_QUIET = 0.3  # load average per core above which figures are not to be trusted
_EXAMPLES = """
\b
Examples:
  python -m loadtests.compare                                   everything, three rounds
  python -m loadtests.compare --json out.json --plot out.svg    the same, for the README
  python -m loadtests.compare --peers none --rounds 1           zooserve beside the bare loop only
  python -m loadtests.compare --peers fastapi,litserve --seconds 3 --open-loop none --no-scenarios
  python -m loadtests.compare --pixels both                     peers with Pillow and with OpenCV
  python -m loadtests.compare --machine --json machine.json     all cores for all, three models, five rounds
  python -m loadtests.compare --machine --peers fastapi --rounds 1 --seconds 3 --model models/u2netp/1
  python -m loadtests.compare --show out.json --plot out.svg    the tables and the plot of an earlier run
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--peers", default="all", show_default=True, callback=peers_of, help="Names with commas, `all`, or `none`."
)
@click.option("--machine", "whole", is_flag=True, help="Client and servers share all cores; peers' own defaults.")
@click.option("--rounds", type=click.IntRange(1, 100), help="[default: 3; with --machine 5]")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 600), help="Of each load.")
@click.option("--warm-up", default=2.0, show_default=True, help="Seconds of load on each server that do not count.")
@click.option("--bare-seconds", default=2.0, show_default=True, help="Of each of the two bare loops around a server.")
@click.option(
    "--concurrency", callback=counts, help="Clients of closed loops.  [default: 1,8,32; with --machine 1,2,8,32]"
)
@click.option(
    "--open-loop",
    default="50%,80%",
    show_default=True,
    callback=rates,
    help="Rates of open loops: requests per second, or shares of the bare loop's rate; or `none`.",
)
@click.option("--pixels", type=click.Choice(["fast", "pillow", "both"]), default="fast", show_default=True)
@click.option("--scenarios/--no-scenarios", default=True, show_default=True, help="After a burst; at 2 x capacity.")
@click.option("--deadline-ms", default=500.0, show_default=True, help="Of a request at twice the capacity.")
@click.option("--server-core", default=0, show_default=True, help="The core of the servers and of the bare loops.")
@click.option("--client-core", default=1, show_default=True, help="The core of the client.")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The folder of the exported model; with --machine it may be repeated.  [default: models/mobilenet_v2/1; with "
    "--machine also yolov4_tiny and u2netp, and without peers deeplabv3_mobilenet_v2 and yolov8n where exported]",
)
@json_option()
@plot_option()
@click.option(
    "--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Measure nothing; read this JSON."
)
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep what the servers print here.")
@fail_if_option()
@click.pass_context
def main(
    context: click.Context,
    peers: tuple[str, ...],
    whole: bool,
    rounds: int | None,
    seconds: float,
    warm_up: float,
    bare_seconds: float,
    concurrency: tuple[int, ...] | None,
    open_loop: tuple[str, ...],
    pixels: Literal["fast", "pillow", "both"],
    scenarios: bool,
    deadline_ms: float,
    server_core: int,
    client_core: int,
    models: tuple[Path, ...],
    json_path: Path | None,
    plot_path: Path | None,
    show: Path | None,
    logs: Path | None,
    fail_if: tuple[Condition, ...],
) -> None:
    """Compare zooserve with its peers and with the bare loop: one photo, one model, one core for the server.

    With --machine: three models, and all cores for the server and its client together, as a user has it. One client is
    then compared with the best bare loop of any number of threads, two with two bare loops side by side.

    One server at a time, on 127.0.0.1, all of them in every round. Each trial lies between two runs of the bare loop
    that does the same work with the same pixels. A server's answer must be the bare loop's before anything counts.
    """
    if show is not None:
        _show(show, plot_path, fail_if)
        return
    check_mode(context, whole, pixels, models)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    plan = Plan(
        rounds=rounds or (5 if whole else 3),
        seconds=seconds,
        warm_up=warm_up,
        bare_seconds=bare_seconds,
        concurrency=concurrency or ((1, 2, 8, 32) if whole else (1, 8, 32)),
        open_loop=() if whole else open_loop,
        scenarios=scenarios and not whole,
        deadline_ms=deadline_ms,
        server_cores=cores if whole else (server_core,),
        client_cores=cores if whole else (client_core,),
        threads=0 if whole else 1,
    )
    alone: list[Path] = []
    folders = list(models) or [_STORE / "mobilenet_v2" / "1"]
    if whole and not models:
        folders, alone = default_models(_STORE)
    _check_machine(plan, folders)
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
        say(f"leaving out {name}: {problem}")
    adopt_orphans()
    os.sched_setaffinity(0, plan.client_cores)
    kinds = ("fast", "pillow") if pixels == "both" else (pixels,)
    chosen = [(server, kind) for server in servers if server.name not in problems for kind in kinds]
    results = _measure(plan, jpeg, chosen, folders, alone if whole else None, logs)
    settings: dict[str, Any] = {**msgspec.to_builtins(plan), "photo_bytes": len(jpeg)}
    if whole:
        settings["models"] = [f.parent.name for f in folders + alone]
    installed = versions(("zooserve", "httptools", "uvloop", "msgspec"))
    common = measurements(results.trials, results.sweeps)
    done = report("compare", sys.argv[1:], where, installed, settings, results, measurements=common)
    if json_path is not None:
        write_json(json_path, done)
    _present(results, plot_path, done)
    exit_if_failed(judge(fail_if, common))


def _measure(
    plan: Plan,
    jpeg: bytes,
    chosen: Sequence[tuple[Server, str]],
    folders: Sequence[Path],
    alone: Sequence[Path] | None,
    logs: Path | None,
) -> Results:
    """Measure the models in `folders` on the whole machine, those of `alone` without peers. None: pinned, one model."""
    sweeps: list[Sweep] = []
    with TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        path = scratch / "photo.jpg"
        path.write_bytes(jpeg)
        logs = (logs or scratch).resolve()
        logs.mkdir(parents=True, exist_ok=True)
        bench = Bench(plan, path, folders[0].resolve(), scratch, logs, free_port(), say)
        if alone is None:
            trials = run_rounds(bench, chosen)
        else:
            ours = [(server, kind) for server, kind in chosen if server.name == "zooserve"]
            tasks = [Task(replace(bench, model=f.resolve()), chosen) for f in folders]
            tasks += [Task(replace(bench, model=f.resolve()), ours) for f in alone]
            say(f"{', '.join(task.model for task in tasks)}: about {estimate(plan, tasks) / 60:.0f} minutes in all")
            trials, sweeps = run_machine(tasks)
        if not trials:
            raise click.ClickException("nothing was measured to its end: run it again, perhaps with fewer --peers")
    return Results({server.name: server.versions() for server, _ in chosen}, trials, sweeps)


def _show(path: Path, plot_path: Path | None, fail_if: tuple[Condition, ...]) -> None:
    try:
        earlier = read_json(path)
        found = msgspec.convert(earlier.details, Results)
    except (ReportError, msgspec.ValidationError) as error:
        raise click.ClickException(f"{path} cannot be shown: {error}") from error
    _present(found, plot_path, earlier)
    exit_if_failed(judge(fail_if, earlier.measurements))


def _present(results: Results, plot_path: Path | None, done: Report) -> None:
    found = rows(results.trials)
    if results.sweeps:
        click.echo(f"\n{machine_tables(found, results.sweeps)}\n\n{MACHINE_NOTE}")
    else:
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
            of = f"{row.model}, " if row.model else ""
            click.echo(f"problem with {row.server} ({of}{row.pixels}), {problem}")
    for goal in check_machine(found) if results.sweeps else check(found):
        click.echo(str(goal))
    if plot_path is not None and found:
        plot(plot_path, panels(found), f"{found[0].pixels} pixels; {done.machine.processor}; {done.date[:10]}")


def _check_machine(plan: Plan, models: Sequence[Path]) -> None:
    for model in models:
        if not (model / "model.onnx").is_file():
            name = model.parent.name or "mobilenet_v2"
            raise click.UsageError(f"{model} holds no model.onnx: run `zooserve export {name}`, or give --model")
    if sandbox.inside():
        return
    cores = os.sched_getaffinity(0)
    if missing := {*plan.server_cores, *plan.client_cores} - cores:
        raise click.UsageError(f"there is no core {min(missing)}: this process may use {sorted(cores)}")
    if (load := os.getloadavg()[0]) > _QUIET * len(cores):
        say(f"The machine is not quiet (load average {load:.1f}): do not trust these figures.")


if __name__ == "__main__":
    main()
