"""`python -m loadtests.gpu`: all measurements on a GPU in one go, one table."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import click
import onnxruntime as ort
from msgspec import Struct

from loadtests.album import shrink
from loadtests.gpu.bench import Bench, Row, table
from loadtests.gpu.decode import decode
from loadtests.gpu.nvml import Gpu
from loadtests.gpu.service import Http, end_to_end
from loadtests.gpu.session import PROVIDERS, Device, Model, ProviderError, prepare
from loadtests.gpu.sweep import sweep, variants
from loadtests.report import machine, report, versions, write_json
from zoo.store import Entry, Store

PARTS = ("decode", "session", "http", "variants")
_PACKAGES = (
    "zooserve",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "torch",
    "onnx",
    "tensorrt",
    "bentoml",
    "starlette",
    "uvicorn",
    "uvloop",
    "simplejpeg",
    "opencv-python-headless",
    "cykooz-resizer",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "nvidia-ml-py",
)
_EXAMPLES = """
\b
Examples:
  python -m loadtests.gpu --out gpu.json                        everything, all exported models
  python -m loadtests.gpu --only resnet50 --workers 1,2,4 --clients 8
  python -m loadtests.gpu --parts session,variants --seconds 0.5 --minutes 8
  python -m loadtests.gpu --provider cpu --quick                tries the script itself, without a GPU
"""


class Results(Struct, frozen=True):
    """What JSON reports: the GPU, how many nodes of each model ran on which provider, and all rows."""

    gpu: dict[str, str]
    nodes: dict[str, dict[str, int]]
    rows: list[Row]


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.split(",") if word.strip()]
    if not words or any(not word.isdecimal() or int(word) == 0 for word in words):
        raise click.BadParameter(f"{value}: expected whole numbers from 1, with commas")
    return tuple(int(word) for word in words)


def _parts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    if unknown := set(words) - set(PARTS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return words


@click.command(epilog=_EXAMPLES)
@click.option("--models", "root", default=Path("models"), show_default=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="NAME", help="Of a model; can be given several times.  [default: all]")
@click.option("--provider", "device", default="cuda", show_default=True, type=click.Choice(list(PROVIDERS)))
@click.option("--parts", default=",".join(PARTS), show_default=True, callback=_parts)
@click.option("--batches", default="1,2,4,8,16,32,64", show_default=True, callback=_numbers)
@click.option("--variant-batches", default="1,8,32", show_default=True, callback=_numbers)
@click.option("--concurrency", default="1,8,32,64,128,256", show_default=True, callback=_numbers, help="Over HTTP.")
@click.option("--workers", default="1", show_default=True, callback=_numbers, help="Server processes, each tried.")
@click.option("--clients", default=4, show_default=True, type=click.IntRange(1, 64), help="Processes that send.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.05), help="Of each measurement.")
@click.option("--http-seconds", default=4.0, show_default=True, type=click.FloatRange(0.2), help="Of each over HTTP.")
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0.1), help="Begin nothing later.")
@click.option("--quick", is_flag=True, help="A few short measurements of each part: figures are worthless.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON; written after every row.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="The table.")
def main(
    root: Path,
    only: tuple[str, ...],
    device: Device,
    parts: tuple[str, ...],
    batches: tuple[int, ...],
    variant_batches: tuple[int, ...],
    concurrency: tuple[int, ...],
    workers: tuple[int, ...],
    clients: int,
    seconds: float,
    http_seconds: float,
    minutes: float,
    quick: bool,
    out: Path | None,
    markdown: Path | None,
) -> None:
    """Measure every exported model: the bare session at all batch sizes and in all ways, decoding, and over HTTP.

    It first makes sure that the GPU truly computes. What cannot be measured becomes a row that says why. One GPU is
    used: the first that is visible.
    """
    if quick:
        batches, variant_batches, concurrency = (1, 4), (4,), (1, 4)
        seconds, http_seconds, clients = 0.05, 0.5, 2
    where = machine()
    gpu = Gpu(_visible() if device == "cuda" else None)
    nodes: dict[str, dict[str, int]] = {}

    def on_row(row: Row) -> None:
        rate = "-" if row.rate is None else f"{row.rate:.0f}/s"
        click.echo(f"  {row.part} {row.model}, {row.way}, {row.load}: {rate} {row.note}", err=True)
        if out is not None:
            write_json(out, report("gpu", sys.argv[1:], where, versions(_PACKAGES), settings, done()))

    def done() -> Results:
        return Results(gpu.about(), nodes, bench.rows)

    settings = {"provider": device, "seconds": seconds, "http_seconds": http_seconds, "clients": clients}
    bench = Bench(gpu, seconds, monotonic() + 60 * minutes, on_row)
    with TemporaryDirectory(prefix="gpu-") as folder:
        try:
            provider = prepare(device)
            models = [Model(entry, device, Path(folder)) for entry in _entries(root, only)]
            for model in models:
                nodes[model.card.name] = model.placement(provider)
        except ProviderError as error:
            raise click.ClickException(str(error)) from error
        jpeg = _jpeg(models)
        http = Http(concurrency, workers, clients, http_seconds)
        if "decode" in parts:
            decode(bench, models[0].card.name, models[0].card.recipe, jpeg)
        for model in models if "session" in parts else ():
            sweep(bench, model, batches)
        for model in models if "http" in parts else ():
            end_to_end(bench, model, root, http, jpeg)
        for model in models if "variants" in parts else ():
            variants(bench, model, variant_batches)
    text = _text(done(), ort.__version__)
    click.echo(text)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(f"{text}\n", encoding="utf-8")


def _entries(root: Path, only: Sequence[str]) -> list[Entry]:
    """The latest version of each model that was asked for."""
    latest = {entry.name: entry for entry in Store(root).entries() if entry.card is not None and entry.card.golden}
    if missing := sorted(set(only) - set(latest)):
        raise click.UsageError(f"{root} holds no {', '.join(missing)}: run `zooserve export {' '.join(missing)}`")
    chosen = [entry for name, entry in latest.items() if not only or name in only]
    if not chosen:
        raise click.UsageError(f"{root} holds no models: run `zooserve export --default`, or give --models")
    return chosen


def _jpeg(models: Sequence[Model]) -> bytes:
    """The 640 x 480 photo: of the astronaut, as everywhere in `loadtests`, where a model was exported with it."""
    golden = sorted(path for model in models for path in (model.path.parent / "golden").iterdir())
    return shrink(next((path for path in golden if path.stem == "astronaut"), golden[0]))


def _visible() -> int:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    return int(first) if first.isdecimal() else 0


def _text(results: Results, runtime: str) -> str:
    about = ", ".join(f"{name} {value}" for name, value in results.gpu.items())
    nodes = "; ".join(
        f"{model}: " + ", ".join(f"{count} on {provider}" for provider, count in placed.items())
        for model, placed in results.nodes.items()
    )
    return f"{table(results.rows)}\n\nONNX Runtime {runtime}; {about}. Nodes that ran: {nodes}."


if __name__ == "__main__":
    main()
