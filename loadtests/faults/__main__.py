"""`python -m loadtests.faults`: what a service loses when something breaks, fault by fault, under a steady load.

Every fault has a server of its own and clients that ask without a pause. Lost is what the server took in and never
answered; who was refused with a reason, or could not connect, lost nothing. The exit code is 1 where more was lost than
a killed process had in hand.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console

from loadtests.compare.process import ServerError
from loadtests.faults.inflict import BEFORE, CLIENTS, FAULTS, MODEL, inflict
from loadtests.faults.load import Outcome
from loadtests.report import Report, machine, markdown_table, report, versions, write_json

RESULTS = Path(__file__).parents[1] / "results"


def table(outcomes: Sequence[Outcome]) -> str:
    """Lay out the table of the documentation."""
    header = (
        "what was done",
        "answered",
        "refused",
        "turned away",
        "lost",
        "longest silence",
        "ready again",
        "p99 before",
        "after",
    )
    rows = [
        (
            o.fault,
            f"{o.answered:,}",
            ", ".join(f"{count:,} x {status}" for status, count in o.refused.items()) or "0",
            f"{o.turned_away:,}",
            str(o.lost),
            f"{o.silence_s:.2f} s",
            f"{o.ready_s:.1f} s" if o.ready_s else "always",
            f"{o.p99_ms[0]:.0f} ms",
            f"{o.p99_ms[1]:.0f} ms",
        )
        for o in outcomes
    ]
    return markdown_table(header, rows)


def page(result: Report) -> str:
    """Lay out the table with where and how it was made."""
    where = result.machine
    return (
        f"# Faults\n\nAs printed by `{result.command}` on {result.date[:10]}: {where.cores} cores, shared with other "
        f"work (load average {where.load:g} at the start), {MODEL}, {CLIENTS} clients.\n\n{table(result.details)}\n"
    )


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True),
    default=Path("models"),
    show_default=True,
    help=f"The folder of exported models; {MODEL} is served.",
)
@click.option("--only", default="", help="Only faults whose name contains this; nothing is written then.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=RESULTS,
    show_default="loadtests/results",
    help="Folder for faults.json and faults.md.",
)
def main(models: Path, only: str, as_json: bool, out: Path) -> None:
    """Do one fault after another to real servers, and say what was lost.

    Exits with 1 where more was lost than a killed process had in hand.
    """
    chosen = [fault for fault in FAULTS if only in fault.name]
    if not chosen:
        raise click.UsageError(f"no fault's name holds {only}; there are: {'; '.join(fault.name for fault in FAULTS)}")
    if not (models / MODEL / "1" / "card.json").is_file():
        raise click.UsageError(f"{models} holds no {MODEL}: run `zooserve export {MODEL}`, or give --models")
    where, console = machine(), Console(stderr=True)
    outcomes, excess = [], False
    for fault in chosen:
        console.print(f"{fault.name} ...", highlight=False)
        try:
            outcomes.append(inflict(fault, models.resolve()))
        except ServerError as error:
            raise click.ClickException(f"{fault.name}: {error}") from error
        excess |= outcomes[-1].lost > (CLIENTS if fault.kills else 0)
    settings = {"model": MODEL, "clients": CLIENTS, "seconds_before": BEFORE}
    result = report("faults", sys.argv[1:], where, versions(("bentoml", "onnxruntime", "uvicorn")), settings, outcomes)
    click.echo(json.dumps(msgspec.to_builtins(result), indent=2) if as_json else table(outcomes))
    if not only:
        write_json(out / "faults.json", result)
        (out / "faults.md").write_text(page(result), encoding="utf-8")
    sys.exit(int(excess))


if __name__ == "__main__":
    main()
