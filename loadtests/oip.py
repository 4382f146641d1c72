"""Is the Open Inference Protocol as quick as `/v1`? The same photo through every endpoint, in turns.

The service runs on one core, the client on another. `/v1` and `/v2` get the JPEG; `/v2` also gets its pixels decoded
and resized, as raw bytes, which is how most clients of the protocol send them. Rates depend on what else the machine
does; the processor's time that the service spends on an image hardly does.
"""

import io
import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import numpy as np
from msgspec import Struct
from PIL import Image

from loadtests.album import standard_photo
from loadtests.client import Limits, Request, closed_loop, run
from loadtests.compare.process import ServerError, on_cores
from loadtests.judge import Condition, exit_if_failed, fail_if_option, judge
from loadtests.options import OutFile, counts, write_text
from loadtests.processes import family, spent
from loadtests.report import Measurement, machine, markdown_table, write_report
from loadtests.serving import serving
from loadtests.stats import Summary, clients_name, median_of, medians, summarise
from loadtests.target import Target
from zoo.card import Recipe
from zoo.errors import ZooError
from zoo.recipe import apply_exact
from zoo.served_card import require_images
from zoo.store import Store

_PACKAGES = ("zooserve", "onnxruntime", "starlette", "uvicorn", "uvloop", "numpy")
_HEADER = ("endpoint", "clients", "images/s", "of /v1's", "p50, ms", "p99, ms", "CPU, ms an image")


class Round(Struct, frozen=True):
    """One load, and the processor's time that the service spent on each image meanwhile, in milliseconds."""

    load: Summary
    cpu_ms: float


class Endpoint(Struct, frozen=True):
    """One endpoint and form with a number of clients: medians of the rounds.

    Attributes:
        of_v1: the rate as a share of that of /v1 in the same round.
    """

    endpoint: str
    clients: int
    rate: float
    of_v1: float
    p50: float
    p99: float
    cpu_ms: float
    rounds: list[Round]


@click.command()
@click.option("--model", default="mobilenet_v2", show_default=True, help="A classifier of the store.")
@click.option("--models", default="models", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Of each load.")
@click.option("--clients", "numbers", default="1,8", show_default=True, callback=counts, help="At once, with commas.")
@click.option("--json", "out", type=OutFile(), help="Of the report; .md beside it.")
@fail_if_option()
def main(
    *,
    model: str,
    models: Path,
    rounds: int,
    seconds: float,
    numbers: tuple[int, ...],
    out: Path | None,
    fail_if: tuple[Condition, ...],
) -> None:
    """Measure images per second through /v1 and through /v2, on a server that it starts."""
    where = machine()
    try:
        results = _measure(model, models, rounds, seconds, numbers)
    except (ServerError, ZooError, OSError) as error:
        raise click.ClickException(str(error)) from error
    table = markdown_table(_HEADER, [_row(endpoint) for endpoint in results])
    click.echo(table)
    chosen = {"model": model, "rounds": rounds, "seconds": seconds, "clients": numbers}
    common = measurements(results)
    write_report(out, "oip", where, _PACKAGES, chosen, results, measurements=common)
    about = f"`{model}` on one core of {where.processor}, medians of {rounds} rounds of {seconds:g} s in turns."
    write_text(out and out.with_suffix(".md"), f"{about}\n\n{table}")
    exit_if_failed(judge(fail_if, common))


def _measure(model: str, models: Path, rounds: int, seconds: float, numbers: Sequence[int]) -> list[Endpoint]:
    entry = Store(models).latest(model)
    if entry.card is None:
        raise click.ClickException(entry.problem)
    endpoints = endpoints_of(model, require_images(entry.card).recipe, standard_photo())
    found: dict[tuple[str, int], list[Round]] = {(name, count): [] for count in numbers for name in endpoints}
    server, client = _cores()
    with TemporaryDirectory(prefix="oip-") as folder, on_cores(server):
        settings = {"ZOOSERVE_MODELS": str(models.resolve()), "ZOOSERVE_LOAD": model}
        with serving(Path(folder) / "log", settings) as (address, process), on_cores(client):
            for request in endpoints.values():
                _load(address, process, request, max(numbers), 1.0)
            for _ in range(rounds):
                for count in numbers:
                    for name, request in endpoints.items():
                        found[name, count].append(_load(address, process, request, count, seconds))
    return [_medians(name, count, own, found[next(iter(endpoints)), count]) for (name, count), own in found.items()]


def measurements(endpoints: Iterable[Endpoint]) -> list[Measurement]:
    """Return what the report has in common with those of other tools: a window for each round."""
    return [
        medians(
            f"{endpoint.endpoint}, {clients_name(endpoint.clients)}",
            [one.load for one in endpoint.rounds],
            clients=endpoint.clients,
        )
        for endpoint in endpoints
    ]


def endpoints_of(model: str, recipe: Recipe, jpeg: bytes) -> dict[str, Request]:
    """Return the photo as each endpoint takes it; all are answered with the same JSON."""
    pixels = np.ascontiguousarray(apply_exact(recipe, Image.open(io.BytesIO(jpeg)).convert("RGB")))
    packed = struct.pack("<I", len(jpeg)) + jpeg
    return {
        "/v1, JPEG": Request("POST", f"/v1/classify?model={model}", {"Content-Type": "image/jpeg"}, jpeg),
        "/v2, JPEG": _binary(model, "image", "BYTES", [1], packed),
        "/v2, pixels": _binary(model, "images", "UINT8", [1, *pixels.shape], pixels.tobytes()),
    }


def _binary(model: str, name: str, datatype: str, shape: list[int], data: bytes) -> Request:
    """Return a request with one tensor behind its JSON, that wants the task's result."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    outputs = [{"name": "result", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
    return Request("POST", f"/v2/models/{model}/infer", headers, header + data)


def _cores() -> tuple[set[int], set[int]]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise click.ClickException("this needs two cores, one for the service and one for the client")
    return {cores[0]}, {cores[1]}


def _load(address: Target, process: int, request: Request, clients: int, seconds: float) -> Round:
    before = spent(family(process))
    summary = summarise(run(closed_loop(address, [request], concurrency=clients, limits=Limits(seconds))))
    used = spent(family(process)) - before
    if summary.errors:
        raise click.ClickException(f"{request.path}: {summary.statuses} {summary.failures}")
    return Round(summary, 1000 * used / max(1, summary.succeeded))


def _medians(name: str, clients: int, rounds: list[Round], base: list[Round]) -> Endpoint:
    def of(figure: Callable[[Summary], float | None]) -> float:
        return median_of(rounds, lambda one: figure(one.load)) or 0.0

    pairs = zip(rounds, base, strict=True)
    return Endpoint(
        name,
        clients,
        rate=of(lambda load: load.rate),
        of_v1=median(one.load.rate / other.load.rate for one, other in pairs),
        p50=of(lambda load: load.p50),
        p99=of(lambda load: load.p99),
        cpu_ms=median(one.cpu_ms for one in rounds),
        rounds=rounds,
    )


def _row(endpoint: Endpoint) -> list[str]:
    figures = (endpoint.rate, endpoint.of_v1, endpoint.p50, endpoint.p99, endpoint.cpu_ms)
    return [endpoint.endpoint, str(endpoint.clients), *(f"{figure:.2f}" for figure in figures)]


if __name__ == "__main__":
    main()
