"""`python -m loadtests.tiles`: what tiles of a large image cost, beside a bare loop over the same tiles.

Starts a server of one detector, and sends it a photo of 12 megapixels with 60 small objects. The loop without a server
decodes the same photo once, cuts the same tiles, and runs them in batches, on all cores: one after the other or side by
side, whichever is faster. Server and loop take turns, so that both see the same machine.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import click
from msgspec.structs import asdict

from loadtests.album import encode
from loadtests.client import Request, fetch, run
from loadtests.compare.process import ServerError
from loadtests.goals import Goal, Turns, verdict
from loadtests.options import json_option, model_option
from loadtests.pipeline import PACKAGES
from loadtests.report import Measurement, TestedServer, machine, write_report
from loadtests.serving import serving
from loadtests.target import Target
from loadtests.tiles.bare import Bare, Way
from loadtests.tiles.scene import Known, recall, scene

_OVERLAP = 0.2
_OK = 200
_MOST, _LEAST = 1.10, 0.95
_EXAMPLES = """
\b
Examples:
  python -m loadtests.tiles                                      yolov4_tiny, five rounds
  python -m loadtests.tiles --model models/yolo11n/1 --rounds 9
"""


class Outcome(Turns, frozen=True, kw_only=True):
    """What was measured; what `Turns` has is of the photo, decoding included.

    Attributes:
        tiles: how many images the graph was given, the whole one included.
        way: of the bare loop; the fastest.
        recall, recall_whole: the share of the small objects that is found in tiles; and without them.
        found: how many objects are found in tiles.
    """

    tiles: int
    way: Way
    recall: float
    recall_whole: float
    found: int


@click.command(epilog=_EXAMPLES)
@model_option("--model", "yolov4_tiny", "detector")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Photos for each of the two.")
@json_option()
def main(model: Path, rounds: int, json_path: Path | None) -> None:
    """Measure tiles beside a bare loop over the same tiles.

    Starts a server of one detector, and sends it a photo of 12 megapixels with 60 small objects.
    """
    before = machine()
    image, known = scene()
    data = encode(image, 95)
    try:
        with TemporaryDirectory() as folder:
            settings = {"ZOOSERVE_MODELS": str(model.parent.parent), "ZOOSERVE_LOAD": model.parent.name}
            settings |= {"ZOOSERVE_DEVICE": "cpu", "ZOOSERVE_TIMEOUT_MS": "600000"}
            with serving(Path(folder) / "log", settings) as (address, _):
                outcome = _measure(address, model, data, known, rounds)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    _show(outcome, len(known))
    measured = Measurement(
        name="tiles",
        clients=1,
        seconds=sum(outcome.served_s),
        requests=rounds,
        errors=0,
        rate_per_s=rounds / sum(outcome.served_s),
        p50_ms=1000 * median(outcome.served_s),
        max_ms=1000 * max(outcome.served_s),
    )
    chosen = {"rounds": rounds, "overlap": _OVERLAP}
    target = TestedServer("http://127.0.0.1", task="detect", model=model.parent.name, version=model.name)
    write_report(json_path, "tiles", before, PACKAGES, chosen, outcome, target=target, measurements=[measured])


def _measure(address: Target, model: Path, data: bytes, known: list[Known], rounds: int) -> Outcome:
    bare = Bare(str(model), _OVERLAP, len(os.sched_getaffinity(0)))
    bare.choose(data)

    def ask(query: str) -> list[Known]:
        path = f"/v1/detect?model={model.parent.name}{query}"
        response = run(fetch(address, Request("POST", path, {"content-type": "image/jpeg"}, data), timeout=600.0))
        if response.status != _OK:
            raise ServerError(f"{path}: {response.status} {response.body.decode(errors='replace')}")
        return [Known(each["label"], tuple(each["box"])) for each in json.loads(response.body)["predictions"]]

    tiled = f"&tiles=auto&tile_overlap={_OVERLAP}&max_tiles=1000"
    found = ask(tiled)  # also a warm-up
    whole = ask("")
    loops, served = [_timed(lambda: bare.seconds(data))], list[float]()
    for _ in range(rounds):
        served.append(_timed(lambda: ask(tiled)))
        loops.append(bare.seconds(data))
    return Outcome(
        **asdict(Turns.of(loops, served)),
        tiles=bare.count(data),
        way=bare.way,
        recall=recall(known, found),
        recall_whole=recall(known, whole),
        found=len(found),
    )


def _timed(work: Callable[[], object]) -> float:
    begin = perf_counter()
    work()
    return perf_counter() - begin


def _show(outcome: Outcome, known: int) -> None:
    size, beside, threads = outcome.way
    for label, text in (
        ("images for the graph", str(outcome.tiles)),
        ("the bare loop runs", f"batches of {size}, {beside} at a time, on {threads} thread{'s' * (threads > 1)} each"),
        ("bare loop", f"{median(outcome.bare_s):.3g} s (rounds differ by {outcome.spread:.0%})"),
        ("served", f"{median(outcome.served_s):.3g} s"),
        ("small objects found", f"{outcome.recall:.1%} of {known}; without tiles {outcome.recall_whole:.1%}"),
        ("objects found", str(outcome.found)),
    ):
        click.echo(f"{label:26}{text}")
    click.echo(str(outcome.goal(f"time over the bare loop's <= {_MOST:.2f}", _MOST)))
    found = Goal(f"small objects found >= {_LEAST:.0%}", f"{outcome.recall:.1%}", verdict(outcome.recall >= _LEAST))
    click.echo(str(found))


if __name__ == "__main__":
    main()
