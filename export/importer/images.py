"""The card of an ONNX file that answers an image with an image. `export.importer.adding` calls it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from export.heads import Pixels
from export.importer.beside import read_beside
from export.importer.draft import Answers, Draft, Finding, choose_licence, own_graph, where_weights_are
from export.importer.graph import Graph, inspect
from export.importer.options import ImportOptions
from export.importer.photos import inputs
from export.importer.pixels import onnx_pixels
from export.importer.recipes import choose_size
from export.onnx_file.reading import one_by_one
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.model_card import Normalise, TensorCard

_USUAL = "0..1"
_RANGES: Mapping[str, tuple[float, float]] = {"0..1": (255.0, 0.0), "-1..1": (127.5, 127.5), "0..255": (1.0, 0.0)}
"""What an answer's values may be in, and the `scale` and `offset` that bring them to 0..255."""


def draft_image(path: Path, stated: ImportOptions) -> Draft:
    """Propose the card of an ONNX file that takes one image and answers with one.

    Raises:
        ExportError: naming what the file lacks, or what has to be said because the file does not say it.
    """
    graph, beside = inspect(path, stated.layout), read_beside(path)
    (height, width), why_size = choose_size(graph, stated, beside)
    output, why_output = _output(graph, stated, graph.answers(height, width))
    resize = stated.resize or "letterbox"
    short_side = round(max(height, width) / 0.875) if resize == "crop" else None
    recipe = Recipe(height, width, resize, short_side=short_side)  # type: ignore[arg-type]  # a choice of the command
    possible, why_pixels = onnx_pixels(graph, stated, "image_to_image", beside)
    pixels = next(iter(possible))
    if len(possible) > 1:
        pixels, why_pixels = _USUAL, "assumed: usual; --mean and --std say otherwise"
    normalise = possible[pixels]
    values = _answered(graph, output, inputs(recipe, stated.photos), normalise)
    span = _range(values)
    scale, offset = _RANGES[span]
    licence, why_licence = choose_licence(path, graph.notes, stated)
    options: dict[str, str | int | float | bool] = {"output": output, "scale": scale, "offset": offset}
    if graph.layout == "nhwc":
        options["channels_last"] = True
    sources = own_graph(path)
    seen = f"values of {values.min():.3g} to {values.max():.3g} on sample photos"
    findings = [
        Finding("task", "an image for an image", "given"),
        Finding("input", f"{graph.layout.upper()}, {width} x {height} pixels, {graph.channels} channels", why_size),
        Finding("resize", resize, "given" if stated.resize else "assumed: keeps the proportions"),
        Finding("pixels", pixels, why_pixels),
        Finding("output", f"{output!r} {list(values.shape[1:])}, {span}", f"{why_output}; {seen}"),
        *where_weights_are(sources),
        Finding("licence", f"{licence.weights} (weights), {licence.code} (code)", why_licence),
    ]
    card = TensorCard(
        name=stated.name,
        version="1",
        task="tensors",
        family="image_to_image",
        title=f"{path.name}, an image for an image",
        licence=licence,
        sources=sources,
        options=options,
        recipe=recipe,
        normalise=normalise,
    )
    return Draft(card, (), findings)


def _output(graph: Graph, stated: ImportOptions, answers: Answers) -> tuple[str, str]:
    axis = 1 if graph.layout == "nchw" else 3
    images = [name for name, one in answers.items() if one.ndim == 4 and one.shape[axis] in {1, 3, 4}]
    listed = ", ".join(f"{name!r} {list(answer.shape)}" for name, answer in answers.items())
    if stated.output is not None and stated.output not in images:
        raise ExportError(
            f"{graph.path}: --output is {stated.output!r}, but an image has 1, 3 or 4 channels; its outputs are "
            f"{listed}"
        )
    if not images:
        raise ExportError(
            f"{graph.path}: no output is an image of 1, 3 or 4 channels; its outputs are {listed}. --task tensors "
            "serves it as it is"
        )
    if stated.output is None and len(images) > 1:
        raise ExportError(f"{graph.path}: which output is the image? There are {listed}: say --output {images[0]}")
    return stated.output or images[0], "given" if stated.output else "the only image"


def _answered(
    graph: Graph, output: str, images: npt.NDArray[np.uint8], normalise: Normalise
) -> npt.NDArray[np.float32]:
    """Return one output for images uint8 [M, H, W, 3], each answered alone."""
    with torch.no_grad():
        x = Pixels(normalise)(torch.from_numpy(images)).numpy()
    return one_by_one(graph.session, [output], x.transpose(0, 2, 3, 1) if graph.layout == "nhwc" else x)[0]


def _range(values: npt.NDArray[np.float32]) -> str:
    """Return the range that an answer's values are in."""
    low, high = np.percentile(values, (1, 99))  # a network may overshoot a little
    if high > 2:
        return "0..255"
    return "-1..1" if low < -0.1 else "0..1"
