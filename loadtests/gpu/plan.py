"""The steps of the GPU script, in order, and what the process of a step is told. Imports nothing that measures."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import click
from msgspec import Struct

from loadtests.gpu.nvml import Gpu
from zoo.served_card import ServedCard
from zoo.store import Store

Device = Literal["cuda", "cpu"]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
STUB = "stub"
_PREFERRED = (
    ("resnet50-fp16", "resnet50", "mobilenet_v2"),
    ("yolov8n-fp16", "yolov8n_onnx-fp16", "yolov8n", "yolov8n_onnx", "yolov4_tiny"),
)


class Step(NamedTuple):
    """One step of the script.

    Attributes:
        number: for `--steps`.
        module: in `loadtests.gpu`; its function `measure(bench, plan)` does it.
        about: what it measures, for people.
        seconds: that one of its processes may take.
        parts: each has a process of its own, since they would disturb each other.
    """

    number: int
    module: str
    about: str
    seconds: float
    parts: Sequence[str] = ("",)


STEPS = (
    Step(1, "rightness", "does the CUDA provider compute rightly; processor, driver", 60),
    Step(2, "jpegs", "JPEGs to the graph's input: all cores, then batches on the GPU", 60, ("cores", "gpu")),
    Step(3, "sizes", "batch sizes repeated and alternating, one session and one per size", 60),
    Step(4, "options", "cuDNN's search, NHWC, fused bias, CUDA graphs, lanes", 90),
    Step(5, "threads", "CUDA graphs under 16 threads", 45),
    Step(6, "waiting", "processor use while waiting for the GPU", 30, ("blocking", "spinning", "bare")),
    Step(7, "service", "JPEGs over HTTP, by front processes and clients", 110, ("0", "1", "4", "8")),
    Step(8, "faults", "out of memory; a broken context", 30, ("memory", "context")),
)


class Plan(Struct, frozen=True):
    """What the process of a step is told.

    Attributes:
        step, part: of `STEPS`.
        root: of the store.
        models: a classifier and a detector of it.
        device: where they run.
        seconds: of each measurement.
        limit: seconds after which nothing new is begun.
        quick: few and small loads, to try the script.
    """

    step: int
    part: str
    root: str
    models: tuple[str, ...]
    device: Device
    seconds: float
    limit: float
    quick: bool


def chosen(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the models to measure: those named, or a classifier and a detector, the first exported of each list.

    Raises:
        click.UsageError: they are not in the store.
    """
    there = {entry.name for entry in Store(root).entries() if isinstance(entry.card, ServedCard) and entry.card.golden}
    if missing := sorted(set(names) - there):
        raise click.UsageError(f"{root} holds no {', '.join(missing)}: run `zooserve export {' '.join(missing)}`")
    found = tuple(names) or tuple(
        next(name for name in preferred if name in there) for preferred in _PREFERRED if there.intersection(preferred)
    )
    if not found:
        raise click.UsageError(f"{root} holds no model to measure: run `zooserve export --default`, or give --models")
    return found


def place(device: Device, gpu: Gpu) -> tuple[str, str]:
    """Return the provider of a device, and what it would compute on: a GPU's name, or `stub`."""
    if device == "cpu":
        return CPU, "-"
    try:
        runtime = ctypes.CDLL("libcudart.so.13")
    except OSError:
        return CUDA, "no CUDA runtime"
    return CUDA, STUB if hasattr(runtime, "stub_counts") else gpu.about().get("name", "unknown: no NVML")


def visible() -> int:
    """Return the number by which NVML knows the first GPU that CUDA may use."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    return int(first) if first.isdecimal() else 0
