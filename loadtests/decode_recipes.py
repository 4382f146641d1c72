"""`python -m loadtests.decode_recipes`: which quick way from a JPEG to the graph's input keeps the answers.

Photos are encoded at several sizes and qualities and prepared in every way. A way is judged by how far the answers of
exported models move away from those for Pillow's exact recipe, and by its time. The bound: no probability moves by
0.02, and the best class stays the best. The exit code is 1 if `service.vision.resize`'s fast way breaks it.
"""

import io
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from msgspec import Struct
from PIL import Image
from rich.console import Console
from rich.progress import track

from loadtests.decode_candidates import WAYS, apply
from loadtests.decode_verdicts import BOUND, Shift, Verdict, compare_classes, compare_objects, judge
from loadtests.report import machine, markdown_table, report, versions, write_json
from service.tasks import detect
from service.vision.decode import Pixels
from service.vision.resize import prepare
from zoo.card import Recipe
from zoo.catalog import fetch_photos
from zoo.recipe import placement
from zoo.served_card import ServedCard, require_images
from zoo.store import Store

EXACT = "Pillow (exact)"
SERVED = "SIMD passes (fast, as served)"
# Width, height, and JPEG's quality and chroma subsampling (0: none, 2: halved both ways).
SIZES: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...] = (
    (200, 150, ((75, 2), (95, 0))),
    (640, 480, ((75, 2), (95, 0))),
    (1024, 683, ((75, 2), (95, 0))),
    (1920, 1080, ((75, 2), (95, 0))),
    (4000, 3000, ((90, 2),)),
)
# Grain that is added where a photo had to be enlarged, in grey levels: cameras' own pictures are not that smooth.
GRAIN = 5.0


class Variant(Struct, frozen=True):
    """One photo as one JPEG."""

    photo: str
    width: int
    height: int
    size: str
    data: bytes


def photos(count: int | None) -> dict[str, Path]:
    """Fetch the photos; with a `count`, so many of them, always the same."""
    found = fetch_photos()
    names = list(found)
    if count is not None:
        names = sorted(random.Random(1).sample(names, min(count, len(names))))  # noqa: S311 - a choice, not a secret
    return {name: found[name] for name in names}


def variants(name: str, path: Path) -> Iterator[Variant]:
    """Cut a photo to each size's shape (turned for upright photos), scale it and encode it."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    for width, height, encodings in SIZES:
        w, h = (height, width) if photo.height > photo.width else (width, height)
        scale = min(photo.width / w, photo.height / h)
        left, top = max(0.0, photo.width - w * scale) / 2, max(0.0, photo.height - h * scale) / 2
        box = (left, top, photo.width - left, photo.height - top)
        scaled = photo.resize((w, h), Image.Resampling.LANCZOS, box)
        if scale < 0.5:
            grain = np.random.default_rng(len(name)).normal(0.0, GRAIN, (h, w, 1))
            scaled = Image.fromarray(np.clip(np.asarray(scaled) + grain, 0, 255).astype(np.uint8))
        for quality, subsampling in encodings:
            data = io.BytesIO()
            scaled.save(data, "JPEG", quality=quality, subsampling=subsampling)
            yield Variant(name, w, h, f"{width} x {height}", data.getvalue())


def ways(variant: Variant, recipe: Recipe) -> dict[str, Callable[[], Pixels]]:
    """Every way to prepare a variant, the exact one and the served one first."""
    found: dict[str, Callable[[], Pixels]] = {
        EXACT: lambda: prepare(variant.data, recipe, exact=True)[0],
        SERVED: lambda: prepare(variant.data, recipe, exact=False)[0],
    }
    for way in WAYS:
        if variant.width * variant.height <= way.largest * 1e6:
            found[way.name] = lambda way=way: apply(way, variant.data, variant.width, variant.height, recipe)  # type: ignore[misc]
    return found


class Model:
    """An exported model, run as the service runs it."""

    def __init__(self, name: str, folder: Path | None) -> None:
        entry = Store(folder).latest(name)
        if entry.card is None:
            raise click.ClickException(entry.problem)
        if entry.card.task == "segment":
            raise click.ClickException(f"{name} segments: only classifiers and detectors are judged here")
        self.card: ServedCard = require_images(entry.card)
        self._session = ort.InferenceSession(entry.path / "model.onnx", providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self.card.outputs]

    def shifts(self, variant: Variant) -> dict[str, Shift]:
        """How far the answer moves, by way."""
        inputs = {name: prepared() for name, prepared in ways(variant, self.card.recipe).items()}
        distinct = {pixels.tobytes(): pixels for pixels in inputs.values()}
        answers = dict(zip(distinct, self._run(list(distinct.values()), variant), strict=True))
        exact = answers[inputs[EXACT].tobytes()]
        compare = compare_classes if self.card.task == "classify" else compare_objects
        found = {}
        for name, pixels in inputs.items():
            grey = float(np.abs(pixels.astype(np.int16) - inputs[EXACT]).mean())
            moved = compare(exact, answers[pixels.tobytes()])
            found[name] = Shift(variant.photo, variant.size, grey, **moved)
        return found

    def _run(self, inputs: list[Pixels], variant: Variant) -> list[Any]:
        """Probabilities [C], or objects, per input."""
        found: list[Any] = []
        for start in range(0, len(inputs), 8):
            values = self._session.run(self._names, {"images": np.stack(inputs[start : start + 8])})
            outputs = dict(zip(self._names, values, strict=True))
            for index in range(len(values[0])):
                if self.card.task == "classify":
                    found.append(outputs["probabilities"][index])
                else:
                    where = placement(self.card.recipe, variant.width, variant.height)
                    found.append(detect.answer(outputs, index, self.card, where, detect.Options()))
        return found


def timed(named: dict[str, Path], recipe: Recipe, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds on one thread, by way and size: the best of `repeats` in turns, then the median over the photos."""
    samples: dict[str, dict[str, list[float]]] = {}
    for name, path in track(named.items(), "times", console=Console(stderr=True)):
        for variant in variants(name, path):
            best: dict[str, float] = {}
            for _ in range(repeats):
                for way, prepared in ways(variant, recipe).items():
                    start = time.perf_counter()
                    prepared()
                    best[way] = min(best.get(way, math.inf), (time.perf_counter() - start) * 1000)
            for way, value in best.items():
                samples.setdefault(way, {}).setdefault(variant.size, []).append(value)
    return {way: {size: statistics.median(values) for size, values in row.items()} for way, row in samples.items()}


def tables(verdicts: dict[str, dict[str, Verdict]], times: dict[str, dict[str, float]], heading: str) -> str:
    """The results as Markdown: one table of times, then one per model."""
    sizes = [f"{width} x {height}" for width, height, _ in SIZES]
    rows = [[way, *(f"{row[s]:.2f}" if s in row else "" for s in sizes)] for way, row in times.items()]
    text = [f"# Quick ways from a JPEG to the graph's input\n\n{heading}\n\n## Milliseconds\n"]
    text.append(markdown_table(["way", *sizes], rows))
    for model, ways_ in verdicts.items():
        rows = [
            [
                way,
                f"{v.score:.4f}",
                f"{v.score_p99:.4f}",
                str(v.changed),
                f"{v.margin:.4f}",
                f"{v.iou:.3f}",
                f"{v.grey:.3f}",
                *(f"{v.worst[s]:.3f}" if s in v.worst else "" for s in sizes),
                "yes" if v.holds else "no",
            ]
            for way, v in ways_.items()
        ]
        header = ["way", "max shift", "p99", "changed", "margin", "IoU", "grey", *sizes, "holds"]
        text.append(f"\n## {model}\n\n{markdown_table(header, rows)}")
    return "\n".join(text) + "\n"


@click.command()
@click.option("--models", "names", default="mobilenet_v2,efficientnet_lite0,yolov4_tiny", show_default=True)
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="The folder of exported models.")
@click.option("--photos", "count", type=click.IntRange(1), help="Only so many photos. [default: all]")
@click.option(
    "--timed", "timed_photos", default=12, show_default=True, type=click.IntRange(1), help="Photos to time with."
)
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Repeats of each timing.")
@click.option(
    "--json",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results here, and a table beside it.",
)
def main(
    names: str, store: Path | None, count: int | None, timed_photos: int, repeats: int, output: Path | None
) -> None:
    """Compare quick ways to decode and resize by what they do to the answers, and by their time."""
    where = machine()
    models = {name: Model(name, store) for name in names.split(",")}
    named = photos(count)
    first = next(iter(models.values())).card.recipe
    times = timed(dict(list(named.items())[:timed_photos]), first, repeats)
    shifts: dict[str, dict[str, list[Shift]]] = {name: {} for name in models}
    total = 0
    for name, path in track(named.items(), "answers", console=Console(stderr=True)):
        for variant in variants(name, path):
            total += 1
            for model_name, model in models.items():
                for way, shift in model.shifts(variant).items():
                    shifts[model_name].setdefault(way, []).append(shift)
    verdicts = {model: {way: judge(rows) for way, rows in found.items()} for model, found in shifts.items()}
    heading = (
        f"{len(named)} photos, {total} JPEGs. Shift: of a probability, or of an object's score, from the exact answer. "
        "Changed: another best class, or an object lost; margin: how far apart the two best classes were there; "
        "IoU: the smallest overlap of an object with itself; grey: mean difference of the inputs, in grey levels. "
        f"Holds: every shift and margin is below {BOUND} and every IoU above 0.9. "
        f"Times: one thread, for {first.resize} to {first.width} x {first.height}."
    )
    text = tables(verdicts, times, heading)
    click.echo(text)
    if output is not None:
        installed = versions(
            ("pillow", "simplejpeg", "cykooz-resizer", "opencv-python-headless", "numpy", "onnxruntime")
        )
        settings = {"models": list(models), "photos": sorted(named), "bound": BOUND, "grain": GRAIN, "repeats": repeats}
        results = {"milliseconds": times, "verdicts": verdicts}
        write_json(output, report("decode_recipes", sys.argv[1:], where, installed, settings, results))
        output.with_suffix(".md").write_text(text, encoding="utf-8")
    broken = [model for model, found in verdicts.items() if not found[SERVED].holds]
    if broken:
        raise click.ClickException(f"the served way breaks the bound for {', '.join(broken)}")


if __name__ == "__main__":
    main()
