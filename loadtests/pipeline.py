"""`python -m loadtests.pipeline`: what a pipeline costs, beside a bare loop of the same two models.

Starts a server whose pipeline asks a classifier about the 20 best objects of a detector, and sends it a photo with more
than 20. The loop without a server decodes the same photo once, runs the detector, cuts the same number of crops, and
runs the classifier on all of them in one batch, on all cores. They take turns, so that both see the same machine.
"""

import json
import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import numpy as np
import simplejpeg
from msgspec.structs import asdict
from PIL import Image

from loadtests.album import encode
from loadtests.client import Limits, Load, Request, closed_loop, fetch, run
from loadtests.compare.process import ServerError
from loadtests.compare.work import Work
from loadtests.goals import Turns
from loadtests.options import json_option, model_option
from loadtests.report import Measurement, TestedServer, machine, write_report
from loadtests.serving import serving
from loadtests.stats import clients_name, measurement
from loadtests.target import Target
from zoo import catalog

PACKAGES = ("zooserve", "onnxruntime", "simplejpeg", "opencv-python-headless", "numpy")
CROPS = 20
_MOST = 1.15
_CLIENTS = (1, 8)
_OK = 200
_PAD = 0.1
_CARD = """\
name = "crops"
title = "The objects with the best scores, classified"
detect = {{ model = "{detector}" }}
crops = {{ pad = {pad}, min_size = 1, max_crops = {crops} }}
second = {{ task = "classify", model = "{classifier}" }}
"""
_EXAMPLES = """
\b
Examples:
  python -m loadtests.pipeline                                      yolov4_tiny and efficientnet_lite0
  python -m loadtests.pipeline --second models/mobilenet_v2/1 --seconds 20 --rounds 5 --json pipeline.json
"""


class Outcome(Turns, frozen=True, kw_only=True):
    """What was measured with some number of clients. A photo's seconds are those of the window over its answers."""

    clients: int


class Bare:
    """Answers a photo without a server.

    Args:
        detector: the folder of an exported detector.
        classifier: the folder of an exported classifier.
    """

    def __init__(self, detector: Path, classifier: Path) -> None:
        threads = os.cpu_count() or 1
        self._detector, self._classifier = (Work(str(folder), threads) for folder in (detector, classifier))

    def answer(self, data: bytes) -> list[dict[str, Any]]:
        """Return the objects of a JPEG, the best `CROPS` of them with their classes."""
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        ((found),) = self._detector.answer([self._detector.resize(pixels)])
        objects: list[dict[str, Any]] = found["predictions"]
        crops = [self._classifier.resize(_crop(pixels, each["box"])) for each in objects[:CROPS]]
        if crops:
            for each, second in zip(objects, self._classifier.answer(crops), strict=False):
                each["second"] = second
        return objects

    def seconds(self, data: bytes, window: float) -> float:
        """Answer the photo again and again for so many seconds, and return how long one takes."""
        begin, count = perf_counter(), 0
        while perf_counter() - begin < window:
            json.dumps(self.answer(data))
            count += 1
        return (perf_counter() - begin) / count


def photo() -> bytes:
    """Return a JPEG of 1500 x 1200 pixels with 30 small photos of a cup, of which a detector finds more than 20."""
    noise = np.random.default_rng(0).normal(0, 3, (1200, 1500, 3))
    image = Image.fromarray((np.array([124, 130, 118]) + noise).astype(np.uint8))
    with Image.open(catalog.sample("coffee")) as cup:
        small = cup.convert("RGB").resize((220, 200), Image.Resampling.LANCZOS)
    for number in range(30):
        image.paste(small, (number % 6 * 250 + 15, number // 6 * 240 + 20))
    return encode(image)


@click.command(epilog=_EXAMPLES)
@model_option("--detector", "yolov4_tiny", "detector", "detector")
@model_option("--second", "efficientnet_lite0", "classifier", "classifier")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 600), help="Of each window.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100), help="Windows of each.")
@json_option()
def main(detector: Path, classifier: Path, seconds: float, rounds: int, json_path: Path | None) -> None:
    """Measure a pipeline beside a bare loop of the same two models.

    Starts a server whose pipeline asks a classifier about the 20 best objects of a detector.
    """
    before, data, bare = machine(), photo(), Bare(detector, classifier)
    outcomes, loads = [], []
    try:
        with TemporaryDirectory() as folder:
            _store(Path(folder), detector, classifier)
            with serving(Path(folder) / "log", {"ZOOSERVE_MODELS": folder}) as (address, _):
                _check(address, data)
                bare.answer(data)
                for clients in _CLIENTS:
                    outcome, load = _measure(address, bare, data, clients, seconds, rounds)
                    outcomes.append(outcome)
                    loads.append(load)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    for outcome in outcomes:
        _show(outcome)
    names = f"{detector.parent.name}, {classifier.parent.name}"
    target = TestedServer("http://127.0.0.1", task="pipeline", model=names)
    settings = {"crops": CROPS, "seconds": seconds, "rounds": rounds}
    write_report(json_path, "pipeline", before, PACKAGES, settings, outcomes, target=target, measurements=loads)


def _store(folder: Path, detector: Path, classifier: Path) -> None:
    for model in (detector, classifier):
        (folder / model.parent.name).mkdir()
        (folder / model.parent.name / model.name).symlink_to(model.absolute())
    (folder / "pipelines").mkdir()
    names = {"detector": detector.parent.name, "classifier": classifier.parent.name}
    (folder / "pipelines/crops.toml").write_text(_CARD.format(pad=_PAD, crops=CROPS, **names), encoding="utf-8")


def _check(address: Target, data: bytes) -> None:
    """Check that the photo has as many crops as it is to have; also a warm-up."""
    response = run(fetch(address, _request(data), timeout=60.0))
    if response.status != _OK:
        raise ServerError(f"the pipeline answered {response.status} {response.body.decode(errors='replace')}")
    crops = sum("second" in each for each in json.loads(response.body)["predictions"])
    if crops != CROPS:
        raise ServerError(f"the photo has {crops} crops; expected {CROPS}: choose another detector")


def _measure(
    address: Target, bare: Bare, data: bytes, clients: int, seconds: float, rounds: int
) -> tuple[Outcome, Measurement]:
    loops, served = [bare.seconds(data, seconds)], list[float]()
    loads: list[Load] = []
    for _ in range(rounds):
        begin = perf_counter()
        loads.append(run(closed_loop(address, [_request(data)], concurrency=clients, limits=Limits(seconds))))
        took = perf_counter() - begin  # until the last answer, as in the bare loop
        if wrong := [each for each in loads[-1].samples if each.status != _OK]:
            raise ServerError(f"{len(wrong)} requests were not answered: status {wrong[0].status}, {wrong[0].failure}")
        served.append(took / len(loads[-1].samples))
        loops.append(bare.seconds(data, seconds))
    outcome = Outcome(**asdict(Turns.of(loops, served)), clients=clients)
    return outcome, measurement(clients_name(clients), loads, clients=clients)


def _request(data: bytes) -> Request:
    return Request("POST", "/v1/pipelines/crops", {"content-type": "image/jpeg"}, data)


def _crop(pixels: "np.ndarray[Any, np.dtype[np.uint8]]", box: list[float]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    height, width, _ = pixels.shape
    across, down = _PAD * (box[2] - box[0]), _PAD * (box[3] - box[1])
    left, top = max(0, round(box[0] - across)), max(0, round(box[1] - down))
    return pixels[
        top : max(top + 1, min(height, round(box[3] + down))), left : max(left + 1, min(width, round(box[2] + across)))
    ]


def _show(outcome: Outcome) -> None:
    who, bare, served = clients_name(outcome.clients), *(1000 * median(s) for s in (outcome.bare_s, outcome.served_s))
    click.echo(
        f"{who}: bare loop {bare:.1f} ms a photo (rounds differ by {outcome.spread:.0%}), served {served:.1f} ms"
    )
    click.echo(str(outcome.goal(f"{who}: time over the bare loop's <= {_MOST:.2f}", _MOST)))


if __name__ == "__main__":
    main()
