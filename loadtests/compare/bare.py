"""The bare loop: the same work without a server, one image after the other. Servers are measured against it.

`loadtests.compare` runs it just before and after a server: `python -m loadtests.compare.bare --help`.
"""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import msgspec
from PIL import Image

from loadtests.client import Load, Sample
from loadtests.compare.work import Answer, Prepared, Work
from loadtests.side_by_side import meet, side_by_side
from loadtests.stats import Summary, summarise

_WARM_UP, _WARM_UP_SECONDS = 20, 1.0  # whichever ends first
_EXAMPLES = """
\b
Examples:
  python -m loadtests.compare.bare --photo photo.jpg --model models/u2netp/1
  python -m loadtests.compare.bare --photo photo.jpg --threads 2 --no-spin
  python -m loadtests.compare.bare --photo photo.jpg --threads 1 --copies 2     two processes side by side
"""


class BareLoop(msgspec.Struct, frozen=True):
    """A bare loop in figures, what it answered, and the processor time of an answer in milliseconds."""

    summary: Summary
    answer: Answer
    processor_ms: float = 0.0


def _zooserve(card: dict[str, Any], *, exact: bool) -> Callable[[bytes], Prepared]:
    """Return zooserve's own decoding and resizing, the very function that its service calls."""
    from service.vision.resize import prepare  # noqa: PLC0415 - only these loops need zooserve
    from zoo.card import Recipe  # noqa: PLC0415

    recipe = msgspec.convert(card["recipe"], Recipe)
    return lambda data: Prepared(*prepare(data, recipe, exact=exact, max_pixels=50_000_000))


LOOPS: dict[str, Callable[[Work], Callable[[bytes], Prepared]]] = {
    "pillow": lambda work: lambda data: work.pillow(Image.open(io.BytesIO(data))),
    "fast": lambda work: work.fast,
    "zooserve": lambda work: _zooserve(work.card, exact=False),
    "zooserve-exact": lambda work: _zooserve(work.card, exact=True),
}


def bare_loop(
    loop: str, data: bytes, model: str, seconds: float, *, threads: int = 1, spin: bool = True, copies: int = 1
) -> BareLoop:
    """Decode, resize, run, answer and write the JSON, over and over for so many seconds.

    Args:
        loop: of `LOOPS`.
        data: a JPEG.
        model: the folder of the exported model.
        seconds: of each loop; 0 only warms up, for the answer.
        threads: of one run of the graph; 0 leaves them to ONNX Runtime.
        spin: whether threads that wait keep their core busy.
        copies: so many processes side by side. Their figures are those of all images together.
    """
    if copies == 1:
        samples, answer, busy = _run(loop, data, model, seconds, threads, spin)
        return BareLoop(summarise(Load(samples, seconds)), answer, busy / max(1, len(samples)) * 1e3)
    found = side_by_side([partial(_run, loop, data, model, seconds, threads, spin)] * copies)
    every = [one for samples, _, _ in found for one in samples]
    busy = sum(seconds for _, _, seconds in found) / max(1, len(every)) * 1e3
    return BareLoop(summarise(Load(every, seconds)), found[0][1], busy)


def _run(
    loop: str, data: bytes, model: str, seconds: float, threads: int, spin: bool
) -> tuple[list[Sample], dict[str, Any], float]:
    work = Work(model, threads, spin=spin)
    prepare = LOOPS[loop](work)

    def once() -> Answer:
        (answer,) = work.answer([prepare(data)])
        json.dumps(answer)
        return answer

    begin, answer = perf_counter(), once()
    for _ in range(_WARM_UP):
        if perf_counter() - begin > _WARM_UP_SECONDS:
            break
        once()
    meet()
    samples: list[Sample] = []
    begin, busy = perf_counter(), process_time()
    now = begin
    while now - begin < seconds:
        start = now
        once()
        now = perf_counter()
        samples.append(Sample(0, start - begin, now - start, 200))
    return samples, answer, process_time() - busy


@click.command(epilog=_EXAMPLES)
@click.option("--loop", type=click.Choice(list(LOOPS)), default="zooserve", show_default=True)
@click.option("--photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--model", default="models/mobilenet_v2/1", show_default=True, help="The folder of the exported model.")
@click.option("--seconds", default=2.0, show_default=True)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(0), help="Of a run; 0: ONNX Runtime's.")
@click.option("--spin/--no-spin", default=True, show_default=True, help="Whether threads that wait stay busy.")
@click.option("--copies", default=1, show_default=True, type=click.IntRange(1), help="Processes side by side.")
def main(loop: str, photo: Path, model: str, seconds: float, threads: int, spin: bool, copies: int) -> None:
    """Run bare loops and print them as JSON."""
    found = bare_loop(loop, photo.read_bytes(), model, seconds, threads=threads, spin=spin, copies=copies)
    click.echo(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
