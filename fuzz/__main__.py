"""`python -m fuzz`: mutate inputs until a parser breaks its promises, or costs more than its input allows."""

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click

from fuzz.oracle import judge
from fuzz.targets import TARGETS

_EXAMPLES = """
\b
Examples:
  python -m fuzz                              every parser for a minute
  python -m fuzz tiff png --minutes 60        two of them for an hour each
  python -m fuzz jpeg --replay FILE           what an input does, once more
  python -m fuzz grpc --keep                  put what is new and reaches more branches into corpus/
"""
_MOST_KEPT = 64  # inputs
_PATIENCE = 120.0  # seconds beyond the time that was given, for a process to start and to end


class Outcome(NamedTuple):
    """What fuzzing one target came to."""

    name: str
    inputs: int
    seconds: float
    found: list[Path]
    said: str


@click.command(epilog=_EXAMPLES)
@click.argument("targets", nargs=-1, type=click.Choice(sorted(TARGETS)))
@click.option(
    "--minutes",
    default=1.0,
    show_default=True,
    type=click.FloatRange(1 / 60),  # of 0 seconds libFuzzer makes no end
    help="How long to look, for each parser.",
)
@click.option(
    "--jobs", default=2, show_default=True, type=click.IntRange(1), help="How many parsers are fuzzed at once."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where findings are written. [default: a new folder]")
@click.option("--replay", type=click.Path(path_type=Path, exists=True), help="Check one file, and say what it costs.")
@click.option("--keep", is_flag=True, help="Keep the shortest new inputs in corpus/.")
def main(
    targets: tuple[str, ...], minutes: float, jobs: int, out: Path | None, replay: Path | None, keep: bool
) -> None:
    """Fuzz parsers, all or those that are named. The exit code is 1 where something was found."""
    names = targets or tuple(TARGETS)
    if replay is not None:
        _replay(names, replay)
        return
    if find_spec("atheris") is None:
        raise click.ClickException("atheris is not installed: pip install 'atheris>=3' (Linux and macOS)")
    out = out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    click.echo(f"{len(names)} parsers, {minutes:g} min each, {jobs} at once; findings go to {out}")
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = []
        for outcome in pool.map(lambda name: _fuzz(name, minutes, out, keep), names):
            click.echo(_line(outcome))
            outcomes.append(outcome)
    found = list(itertools.chain.from_iterable(outcome.found for outcome in outcomes))
    for path in found:
        click.echo(f"found: {path} (python -m fuzz {path.name.split('-')[0]} --replay {path})")
    if found or any(outcome.said for outcome in outcomes):
        sys.exit(1)


def _replay(names: tuple[str, ...], path: Path) -> None:
    if len(names) != 1:
        raise click.UsageError("name the one parser that is to read the file")
    target = TARGETS[names[0]]
    target.prepare()
    cost = judge(target.check, path.read_bytes(), target.limit)
    click.echo(f"{path}: as promised, in {cost.seconds:.3f} s and {cost.memory / 1e6:.1f} MB")


def _fuzz(name: str, minutes: float, out: Path, keep: bool) -> Outcome:
    corpus = out / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed, data in TARGETS[name].seeds():
        (corpus / seed).write_bytes(data)
    start = time.monotonic()
    said = _run(name, round(60 * minutes), out, corpus)
    seconds = time.monotonic() - start
    if keep:
        _keep(name, corpus)
    found = sorted(path for path in out.glob(f"{name}-*") if path.is_file())
    inputs = next((int(line.split()[-1]) for line in said.splitlines() if "number_of_executed_units" in line), 0)
    broken = "" if inputs or found else said[-2000:]
    return Outcome(name, inputs, seconds, found, broken)


def _run(name: str, seconds: int, out: Path, corpus: Path) -> str:
    """Fuzz in a process of its own. Returns what it said."""
    code = "import sys; from fuzz.worker import fuzz; fuzz(*sys.argv[1:2], int(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", code, name, str(seconds), str(out), str(corpus)]
    log = out / f".{name}.log"
    with log.open("wb") as written:
        try:
            subprocess.run(  # noqa: S603 - ourselves
                command, stdout=subprocess.DEVNULL, stderr=written, timeout=seconds + _PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            written.write(f"\nit did not end: {error}\n".encode())
    return log.read_text(errors="replace")


def _keep(name: str, corpus: Path) -> None:
    """Keep the shortest of the inputs that were added because they reach branches that none before them did."""
    kept = Path(__file__).parent / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    known = {data for _, data in TARGETS[name].seeds()}
    new = [path for path in corpus.iterdir() if path.read_bytes() not in known]
    for path in sorted(new, key=lambda path: path.stat().st_size)[:_MOST_KEPT]:
        shutil.copy(path, kept / path.name[:16])


def _line(outcome: Outcome) -> str:
    result = f"{len(outcome.found)} found" if outcome.found else "as promised"
    return f"{outcome.name:12} {outcome.inputs:>10,} inputs in {outcome.seconds:5.0f} s: {outcome.said or result}"


if __name__ == "__main__":
    main()
