"""What functions that run on the stub use: its counts and threads, faults that begin now, and inputs for models."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.lanes import Lanes
from service.engine.providers import Tuning
from service.engine.session import Session

_MOST_THREADS = 256


class Counts(NamedTuple):
    """What happened so far, on all simulated GPUs; the fields of `struct stub_counts`.

    Attributes:
        plans_built: convolution plans that cuDNN built.
        plans_executed: convolutions that were run or captured.
        kernels: launches of other kernels.
        captures: that were begun.
        captures_spoiled: in which a forbidden call was made, by whichever thread.
        graph_launches: graphs that were launched.
        synchronisations: times that a thread waited for a stream, an event or a device.
        streams: that were made.
        handles: of cuDNN and cuBLAS that were made.
        bytes: of device memory that are in use.
        bytes_peak: the most that were in use.
    """

    plans_built: int
    plans_executed: int
    kernels: int
    captures: int
    captures_spoiled: int
    graph_launches: int
    synchronisations: int
    streams: int
    handles: int
    bytes: int
    bytes_peak: int

    def since(self, before: "Counts") -> "Counts":
        """What happened after `before`."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


def counts() -> Counts:
    """What happened so far."""
    values = (ctypes.c_long * len(Counts._fields))()
    _library().stub_counts(values)
    return Counts(*values)


def threads(event: Literal["capture", "launch"]) -> set[int]:
    """The threads (`threading.get_native_id`) that began a capture, or launched a graph."""
    found = (ctypes.c_int * _MOST_THREADS)()
    number = _library().stub_threads(("capture", "launch").index(event), found, _MOST_THREADS)
    return set(found[:number])


def fail(function: str, code: int, calls: int = 1) -> None:
    """Let the next call of a function, or a later one, end with an error. `*` is any function.

    Errors that break a context in CUDA do so here: every later call ends with them.
    """
    _library().stub_fail(function.encode(), code, ctypes.c_long(calls))


def set_memory(size: int) -> None:
    """Let each GPU have so many bytes from now on."""
    _library().stub_set_memory(ctypes.c_size_t(size))


def set_run_us(table: str) -> None:
    """Change how long runs take, as the setting `run_us` does. Graphs that were captured keep their time."""
    _library().stub_set_run_us(table.encode())


def images(rows: int, height: int = 28, width: int = 28) -> dict[str, npt.NDArray[Any]]:
    """Black images as inputs of an exported model; those of lenet5 have 28 x 28 pixels."""
    return {"images": np.zeros((rows, height, width, 3), np.uint8)}


def lanes(model: Path, sizes: Sequence[int], count: int = 1, *, tuning: Tuning | None = None, side: int = 28) -> Lanes:
    """Warm lanes of a model of square images."""
    tuning = tuning or Tuning()
    lanes = Lanes(
        lambda size, stream: Session(model, "cuda", tuning=tuning, batch=size, stream=stream),
        sizes,
        lambda rows: images(rows, side, side),
        graphs=tuning.cuda_graphs,
    )
    for _ in range(count):
        lanes.add()
    return lanes


def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcudart.so.13")
