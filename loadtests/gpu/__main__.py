"""`python -m loadtests.gpu`: all measurements on a GPU, in steps, in less than ten minutes."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import click
from msgspec import Struct

from loadtests.gpu.apart import run_part
from loadtests.gpu.nvml import Gpu
from loadtests.gpu.plan import STEPS, STUB, Device, Plan, Step, chosen, visible
from loadtests.gpu.rows import Row, table
from loadtests.options import OutFile, json_option, say
from loadtests.report import machine, report, versions, write_json

_PACKAGES = (
    "zooserve",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "torch",
    "onnx",
    "bentoml",
    "simplejpeg",
    "opencv-python-headless",
    "cykooz-resizer",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvjpeg",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "nvidia-ml-py",
)
_QUICK_PARTS = 2  # of a step
_LEAST = 10.0  # seconds that are left, or nothing new is begun
_EXAMPLES = """
\b
Examples:
  python -m loadtests.gpu --json gpu.json --markdown gpu.md     all steps
  python -m loadtests.gpu --steps 1,3 --minutes 3               two of them
  python -m loadtests.gpu --steps 7 --model resnet50-fp16       over HTTP, one model
  python -m loadtests.gpu --provider cpu --steps 2,7 --quick    tries the script without a GPU

\b
Steps:
""" + "\n".join(f"  {step.number}  {step.about}" for step in STEPS)


class Results(Struct, frozen=True):
    """What JSON reports: the GPU, and all rows."""

    gpu: dict[str, str]
    rows: list[Row]


def _steps(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[Step, ...]:
    words = {word.strip() for word in value.split(",") if word.strip()}
    known = {str(step.number): step for step in STEPS}
    if not words or (unknown := words - set(known)):
        raise click.BadParameter(f"{', '.join(sorted(unknown)) or 'none'}: the steps are {', '.join(known)}")
    return tuple(step for number, step in known.items() if number in words)


@click.command(epilog=_EXAMPLES)
@click.option("--models", "root", default=Path("models"), show_default=True, type=click.Path(path_type=Path))
@click.option("--model", "names", multiple=True, metavar="NAME", help="Can be given twice: classifier, detector.")
@click.option("--steps", default=",".join(str(step.number) for step in STEPS), show_default=True, callback=_steps)
@click.option("--minutes", default=9.0, show_default=True, type=click.FloatRange(0.1), help="For all of it.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.05), help="Of each measurement.")
@click.option("--provider", "device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
@click.option("--quick", is_flag=True, help="A few short measurements of each step: figures are worthless.")
@json_option()
@click.option("--markdown", type=OutFile(), help="Write the table here.")
def main(
    root: Path,
    names: tuple[str, ...],
    steps: tuple[Step, ...],
    minutes: float,
    seconds: float,
    device: Device,
    quick: bool,
    json_path: Path | None,
    markdown: Path | None,
) -> None:
    """Measure decoding, the engine and the service on the first visible GPU.

    Each step runs in processes of its own, with a time limit; what fails or cannot be measured becomes a row that says
    why, and the next step goes on. Files are written after every row. Every row names the provider and the GPU.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the step's process is ended, too
    models = chosen(root, names)
    where, gpu = machine(), Gpu(visible() if device == "cuda" else None)
    end = monotonic() + 60 * minutes
    settings = {"provider": device, "seconds": seconds, "minutes": minutes, "quick": quick, "models": list(models)}
    rows: list[Row] = []

    def on_row(row: Row) -> None:
        rows.append(row)
        rate = "-" if row.rate is None else f"{row.rate:.0f}/s"
        say(f"  {row.step} {row.model}, {row.way}, {row.load}: {rate} {row.note}")
        if json_path is not None:
            result = report("gpu", sys.argv[1:], where, versions(_PACKAGES), settings, Results(gpu.about(), rows))
            _replace(json_path, lambda path: write_json(path, result))
        if markdown is not None:
            _replace(markdown, lambda path: path.write_text(_text(rows), encoding="utf-8"))

    for step in steps:
        for part in step.parts[:_QUICK_PARTS] if quick else step.parts:
            left = end - monotonic()
            plan = Plan(step.number, part, str(root), models, device, 0.05 if quick else seconds, 0.0, quick)
            if left < _LEAST:
                on_row(Row(step.number, "-", f"part {part}" if part else "the step", note="left out, the time is up"))
            else:
                run_part(plan, min(step.seconds, left), on_row)
    click.echo(_text(rows))


def _text(rows: list[Row]) -> str:
    """The table, and what must be known to read it."""
    lines = [table(rows), ""]
    if any(row.card == STUB for row in rows):
        lines.append(f"`{STUB}`: a simulated GPU that computes nothing. These are no figures of a GPU.")
    if wrong := [row for row in rows if row.step == 1 and row.note.startswith("WrongError")]:
        lines.append(f"The CUDA provider does not compute rightly, so nothing here counts: {wrong[0].note}")
    return "\n".join(lines) + "\n"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is whole whenever this process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    write(new)
    new.replace(path)


if __name__ == "__main__":
    main()
