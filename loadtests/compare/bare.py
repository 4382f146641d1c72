"""The bare loop: the same work without a server, one image after the other. Servers are measured against it.

`loadtests.compare` runs it on the servers' core just before and after each server: `python -m loadtests.compare.bare`.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import msgspec
from PIL import Image

from loadtests.client import Load, Sample
from loadtests.compare.work import Classifier, Pixels, fast, pillow
from loadtests.stats import Summary, summarise

_WARM_UP = 20  # images


class BareLoop(msgspec.Struct, frozen=True):
    """A bare loop in figures, and what it answered."""

    summary: Summary
    answer: dict[str, Any]


def _zooserve(*, exact: bool) -> Callable[[bytes], Pixels]:
    """Return zooserve's own decoding and resizing, the very function that its service calls."""
    from service.vision.resize import prepare  # noqa: PLC0415 - only these loops need zooserve
    from zoo.card import Recipe  # noqa: PLC0415

    recipe = Recipe(224, 224, "crop", 256)
    return lambda data: prepare(data, recipe, exact=exact, max_pixels=50_000_000)[0]


LOOPS: dict[str, Callable[[], Callable[[bytes], Pixels]]] = {
    "pillow": lambda: lambda data: pillow(Image.open(io.BytesIO(data))),
    "fast": lambda: fast,
    "zooserve": lambda: _zooserve(exact=False),
    "zooserve-exact": lambda: _zooserve(exact=True),
}


def bare_loop(loop: str, data: bytes, model: str, seconds: float) -> BareLoop:
    """Decode, resize, run, take the top 5 and write the JSON, over and over for so many seconds."""
    prepare, classifier = LOOPS[loop](), Classifier(model)
    answer: dict[str, Any] = {}

    def once() -> None:
        nonlocal answer
        (answer,) = classifier.classify([prepare(data)])
        json.dumps(answer)

    for _ in range(_WARM_UP):
        once()
    samples: list[Sample] = []
    begin = now = perf_counter()
    while now - begin < seconds:
        start = now
        once()
        now = perf_counter()
        samples.append(Sample(0, start - begin, now - start, 200))
    return BareLoop(summarise(Load(samples, seconds)), answer)


@click.command()
@click.option("--loop", type=click.Choice(list(LOOPS)), default="zooserve", show_default=True)
@click.option("--photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--model", default="models/mobilenet_v2/1", show_default=True, help="The folder of the exported model.")
@click.option("--seconds", default=2.0, show_default=True)
def main(loop: str, photo: Path, model: str, seconds: float) -> None:
    """Run one bare loop and print it as JSON."""
    click.echo(msgspec.json.encode(bare_loop(loop, photo.read_bytes(), model, seconds)))


if __name__ == "__main__":
    main()
