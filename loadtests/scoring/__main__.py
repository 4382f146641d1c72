"""`python -m loadtests.scoring`: `zooserve score` on this machine, and on a Ray cluster of two nodes on this machine.

Runs again in a network of its own, as Ray's ports listen everywhere. Prints what was measured with its goals.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from loadtests.compare.process import ServerError, adopt_orphans
from loadtests.compare.sandbox import enter
from loadtests.goals import Goal, verdict
from loadtests.options import json_option, say
from loadtests.report import machine, write_report
from loadtests.scoring.trial import Trial
from zoo.errors import MissingError
from zoo.extras import require

_TESTS = ("answers", "throughput", "kills", "memory", "bad")
_MANY = 1_000_000
_EXAMPLES = """
\b
Examples:
  python -m loadtests.scoring                                   all, small: about 20 minutes on two cores
  python -m loadtests.scoring --only throughput --images 2000   longer runs
  python -m loadtests.scoring --only memory --model lenet5 --large 20000
"""


@click.command(epilog=_EXAMPLES)
@click.option("--models", default=Path("models"), show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", "names", multiple=True, help="[default: mobilenet_v2, yolov4_tiny]")
@click.option("--only", "only", multiple=True, type=click.Choice(_TESTS), help="May be given several times.")
@click.option("--images", default=800, show_default=True, type=click.IntRange(80), help="Of a run.")
@click.option("--small", default=2000, show_default=True, type=click.IntRange(100), help="Images, for memory.")
@click.option("--large", default=20_000, show_default=True, type=click.IntRange(200), help="Images, for memory.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Of throughput.")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Of a bare loop.")
@json_option()
def main(
    models: Path,
    names: tuple[str, ...],
    only: tuple[str, ...],
    images: int,
    small: int,
    large: int,
    rounds: int,
    seconds: float,
    json_path: Path | None,
) -> None:
    """Measure `zooserve score` on this machine, and on a Ray cluster of two nodes on this machine."""
    try:
        require("ray", "pyarrow")
    except MissingError as error:
        raise click.ClickException(str(error)) from error
    names = names or ("mobilenet_v2", "yolov4_tiny")
    if missing := [name for name in names if not (models / name).is_dir()]:
        raise click.ClickException(f"{models}/{missing[0]} is not there: zooserve export {missing[0]}")
    if not enter("loadtests.scoring", sys.argv[1:]):
        click.echo("no network of its own here: Ray's ports listen on all interfaces, protected by a token", err=True)
    adopt_orphans()
    before, chosen, details = machine(), only or _TESTS, dict[str, Any]()
    try:
        with TemporaryDirectory(prefix="zs-") as folder:
            trial = Trial(models, Path(folder), say)
            tests: dict[str, Callable[[], None]] = {
                "answers": lambda: _answers(trial, names, images, details),
                "throughput": lambda: _throughput(trial, names, images, rounds, seconds, details),
                "kills": lambda: _kills(trial, names[0], images, details),
                "memory": lambda: _memory(trial, names[0], small, large, details),
                "bad": lambda: _bad(trial, names[0], images, details),
            }
            for name in chosen:
                tests[name]()
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    settings = {"models": list(names), "images": images, "small": small, "large": large, "rounds": rounds}
    write_report(json_path, "scoring", before, ("zooserve", "onnxruntime", "ray", "pyarrow"), settings, details)


def _answers(trial: Trial, names: tuple[str, ...], images: int, details: dict[str, Any]) -> None:
    for name in names:
        equal, rows = trial.identical(name, images // 2)
        details[f"answers {name}"] = {"equal": equal, "rows": rows}
        _goal(f"{name}: rows equal to /v1's", f"{equal} of {rows}", met=equal == rows == images // 2)


def _throughput(
    trial: Trial, names: tuple[str, ...], images: int, rounds: int, seconds: float, details: dict[str, Any]
) -> None:
    for name in names:
        found = trial.throughput(name, images, rounds, seconds)
        details[f"throughput {name}"] = found
        ways = (("bare loops", found.bare, 1.0), ("local", found.local, 0.95), ("two nodes", found.nodes, 0.92))
        for what, speed, _ in ways:
            whole = _MANY / (speed.constant_s + _MANY / speed.rate) if speed.rate else 0.0
            click.echo(
                f"{name}, {what}: {speed.rate:.1f} images/s, {speed.processor_ms:.2f} ms of processor time an image, "
                f"{speed.constant_s:.1f} s besides; a million images at {whole:.1f}/s"
            )
        for what, speed, goal in ways[1:]:
            _goal(f"{name}: {what} over bare loops >= {goal}", f"{speed.ratio:.3f}", met=speed.ratio >= goal)


def _kills(trial: Trial, name: str, images: int, details: dict[str, Any]) -> None:
    details["kills"] = []
    for kill in trial.kills(name, images):
        details["kills"].append(kill)
        _goal(f"SIGKILL of {kill.what} at {kill.at:.0%}: one row an image", f"{kill.seconds:g} s", met=kill.whole)


def _memory(trial: Trial, name: str, small: int, large: int, details: dict[str, Any]) -> None:
    found = details["memory"] = trial.memory(name, small, large)
    for what, (first, last) in (("driver", found.driver_mb), ("actors", found.actors_mb)):
        _goal(
            f"memory of the {what}: {last:g} MB over {first:g} MB <= 1.05",
            f"{last / first:.3f}",
            met=last / first <= 1.05,
        )


def _bad(trial: Trial, name: str, images: int, details: dict[str, Any]) -> None:
    details["bad"] = trial.bad(name, images)
    for bad in details["bad"]:
        _goal(f"rows of {bad.kind}", f"{bad.found} of {bad.expected}", met=bad.found == bad.expected)


def _goal(what: str, found: str, *, met: bool) -> None:
    click.echo(str(Goal(what, found, verdict(met))))


if __name__ == "__main__":
    main()
