"""`python -m loadtests.zoo_on_demand`: a zoo that is larger than its budget for memory; what loading on demand costs.

Starts a server on a store of copies of exported models. Prints how often models are loaded while those that are asked
for fit, what loads cost the requests of other models, and what random requests to all of them get.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from loadtests.compare.process import ServerError
from loadtests.options import json_option, say
from loadtests.report import machine, write_report
from loadtests.zoo_on_demand.measure import Outcome, Trial

_ORIGINALS = ("mobilenet_v2", "yolov4_tiny", "efficientnet_lite0", "deeplabv3_mobilenet_v2", "u2netp")
_EXAMPLES = """
\b
Examples:
  python -m loadtests.zoo_on_demand                                   24 models, room for 8, ten minutes
  python -m loadtests.zoo_on_demand --models 12 --fit 4 --seconds 60  smaller
"""


@click.command(epilog=_EXAMPLES)
@click.option("--models", default=24, show_default=True, type=click.IntRange(3, 1000), help="How many there are.")
@click.option("--fit", default=8, show_default=True, type=click.IntRange(2, 1000), help="How many have room.")
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(1), help="Of random requests.")
@click.option("--clients", default=4, show_default=True, type=click.IntRange(1, 64), help="That ask at the same time.")
@click.option(
    "--original",
    "originals",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folders of exported models to copy.  [default: {', '.join(_ORIGINALS)}]",
)
@json_option()
def main(
    models: int, fit: int, seconds: float, clients: int, originals: tuple[Path, ...], json_path: Path | None
) -> None:
    """Measure a zoo that is larger than its budget for memory.

    Starts a server on copies of exported models. Prints how often models are loaded while those that are asked for fit,
    what loads cost the requests of other models, and what random requests to all of them get.
    """
    folders = list(originals) or [Path("models", name, "1") for name in _ORIGINALS]
    if missing := [str(folder) for folder in folders if not (folder / "card.json").is_file()]:
        raise click.ClickException(f"{missing[0]} is not there: zooserve export --default")
    before = machine()
    try:
        with TemporaryDirectory() as folder:
            trial = Trial(folders, models, clients, Path(folder), say)
            outcome = trial.run(fit, seconds)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    for line in [*trial.failed, *trial.wrong][:5]:
        say(line)
    _show(outcome)
    settings = {"models": models, "fit": fit, "seconds": seconds, "clients": clients}
    write_report(json_path, "zoo_on_demand", before, ("zooserve", "onnxruntime"), settings, outcome)


def _show(outcome: Outcome) -> None:
    quiet, during = outcome.p99_quiet_ms, outcome.p99_during_loads_ms
    for label, text in (
        ("budget", f"{outcome.budget_mb:g} MB for {outcome.models} models; {outcome.fit} of the first have room"),
        ("loads while they fit", f"{outcome.loads_while_fitting} of {outcome.expected_loads} models"),
        ("p99 of a pinned model", f"{quiet:g} ms; while others are loaded {during:g} ms ({during / quiet:.2f})"),
        ("random requests", f"{outcome.requests}, wrong {outcome.wrong}, failed {outcome.failed}"),
        ("loads meanwhile", str(outcome.loads)),
        ("a load", ", ".join(f"{name} {seconds:g} s" for name, seconds in outcome.load_seconds.items())),
        ("memory above the budget", f"{outcome.over_budget:.1%}"),
    ):
        click.echo(f"{label:26}{text}")


if __name__ == "__main__":
    main()
