"""Normalisations: the stated one, or those to try where none is stated.

Called by `export.importer.draft` and `export.importer.checkpoint`; `export.importer.trial` chooses among several.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from export.caffe.net import trained_pixels
from export.importer.beside import Beside
from export.importer.graph import Graph
from export.importer.options import ImportOptions
from zoo.errors import CardError
from zoo.model_card import Normalise

_IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_UNIT = Normalise()
_RAW = Normalise(std=(1.0, 1.0, 1.0))
_CAFFES_MEAN = Normalise((123.0, 117.0, 104.0), (1.0, 1.0, 1.0), "bgr")
CANDIDATES = {
    "ImageNet's mean and deviation": _IMAGENET,
    "0..1": _UNIT,
    "-1..1": Normalise((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "0..255": _RAW,
    "0..255 BGR less ImageNet's mean": _CAFFES_MEAN,
}
_OF_DETECTORS = ("0..1", "0..255", "ImageNet's mean and deviation")
TO_BE_TRIED = "to be tried"
YOLOX = {"0..255 BGR": Normalise(std=(1.0, 1.0, 1.0), channels="bgr")}
_CAFFE = {
    "0..255 BGR less ImageNet's mean": _CAFFES_MEAN,
    **YOLOX,
    "0..255 BGR less ImageNet's mean, times 0.017": Normalise((123.68, 116.78, 103.94), (1 / 0.017,) * 3, "bgr"),
    "0..1 BGR": Normalise(channels="bgr"),
}


def in_bytes(stated: dict[str, Any]) -> dict[str, Any]:
    """Bring `mean` and `std` to 0..255, where they are of pixels in 0..1.

    They are, where a deviation is below 1, or a mean is between 0 and 1 and the deviation not above 1.

    Raises:
        CardError: one is of pixels in 0..1 and the other of 0..255, or it is not said which.
    """
    mean, std = stated["mean"], stated["std"]
    if not all(math.isfinite(value) for value in (*(mean or ()), *(std or ()))) or 0 in (std or ()):
        raise CardError("--mean and --std must be finite numbers, and --std not 0: pixels are divided by it")
    largest = max(map(abs, mean)) if mean is not None else 0.0
    small_mean, small_std = 0 < largest <= 1, std is not None and max(std) < 1
    if small_mean and std is None:
        raise CardError(
            f"--mean is {_listed(mean)}, of pixels in 0..1, and there is no --std: say --std 1, if pixels are only "
            "divided by 255, or what else they are divided by; or --mean and --std both of pixels in 0..255"
        )
    if (small_mean and max(std) > 1) or (small_std and largest > 1):
        small, values = ("--mean", mean) if small_mean else ("--std", std)
        raise CardError(
            f"--mean is {_listed(mean)} and --std is {_listed(std)}: one is of pixels in 0..1 and the other of pixels "
            f"in 0..255. Say both of one range; for 0..255, {small} is {_listed(_times_255(values))}"
        )
    if not (small_mean or small_std):
        return stated
    return stated | {"mean": mean and _times_255(mean), "std": _times_255(std)}


def _times_255(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(255 * value, 3) for value in values)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def onnx_pixels(graph: Graph, stated: ImportOptions, family: str, beside: Beside) -> tuple[dict[str, Normalise], str]:
    """Return the normalisations to try, by what they are called, and why no others."""
    channels = "grey" if graph.channels == 1 else stated.channels
    known = TO_BE_TRIED
    if stated.mean is not None or stated.std is not None:
        given = Normalise(stated.mean or (0.0, 0.0, 0.0), stated.std or (1.0, 1.0, 1.0))
        found = {_described(given): given}
        known = "given"
    elif graph.normalises:
        found = {"0..255": _RAW} if graph.full_scale == 255 else {"0..1": _UNIT}
        known = f"the graph itself begins with {graph.normalises}"
    elif beside.normalise is not None:
        found, known = {_described(beside.normalise): beside.normalise}, beside.known_from
    elif graph.notes.of_ultralytics:
        found, known = {"0..1": _UNIT}, "Ultralytics' notes in the file"
    elif family == "yolo_onnx":
        found = {name: CANDIDATES[name] for name in _OF_DETECTORS}
    else:
        found = dict(CANDIDATES)
    if channels is not None:
        found = {
            name: msgspec.structs.replace(normalise, channels=channels)
            for name, normalise in found.items()
            if normalise.channels == "rgb" or len(found) == 1
        }
    return found, known


def caffe_pixels(path: Path, stated: ImportOptions, *, grey: bool) -> tuple[dict[str, Normalise], str]:
    """Return the normalisations to try, the usual one first, and how they are known."""
    channels = "grey" if grey else stated.channels or "bgr"
    if stated.mean is not None or stated.std is not None:
        found, known = {"as given": Normalise(stated.mean or (0.0,) * 3, stated.std or (1.0,) * 3)}, "given"
    elif (trained := trained_pixels(path)) is not None:
        means, scale = trained
        mean = tuple(reversed(means)) * (3 // len(means))
        found, known = {"as in training": Normalise(mean, (1 / scale,) * 3)}, "the file's data layer"  # type: ignore[arg-type]
    else:
        found, known = dict(_CAFFE), TO_BE_TRIED
    return {k: msgspec.structs.replace(one, channels=channels) for k, one in found.items()}, known


def _described(normalise: Normalise) -> str:
    return f"0..255 less {_numbers(normalise.mean)}, divided by {_numbers(normalise.std)}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) if len(set(values)) > 1 else f"{values[0]:g}"
