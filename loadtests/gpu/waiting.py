"""Step 6: how much of a core a thread takes that waits for the GPU: as served (blocking), spinning, a bare session."""

import ctypes
from pathlib import Path

from loadtests.gpu.bench import Bench
from loadtests.gpu.engine import Model, Stream, need_cuda
from loadtests.gpu.plan import Plan

_SPIN = 1  # cudaDeviceScheduleSpin
_ROWS = 32


class Spinning(Stream):
    """A stream whose thread spins while it waits."""

    def __init__(self, device_id: int) -> None:
        super().__init__(device_id)
        ctypes.CDLL("libcudart.so.13").cudaSetDeviceFlags(_SPIN)


def measure(bench: Bench, plan: Plan) -> None:
    """Time the classifier in one of the ways; how a process waits is one setting of it."""
    need_cuda(plan.device)
    model = Model(Path(plan.root), plan.models[0])
    inputs = model.inputs(4 if plan.quick else _ROWS)
    rows = len(inputs["images"])
    load = f"batch {rows}, 1 thread"
    if plan.part == "bare":
        session = model.session()
        bench.attempt(model.name, "bare session", load, lambda: bench.measure(lambda: session.run(inputs), rows))
        return
    with model.lanes((rows,), make_stream=Spinning if plan.part == "spinning" else Stream) as lanes:
        bench.attempt(model.name, plan.part, load, lambda: bench.measure(lambda: lanes.run(inputs), rows))
