"""The process of one part of one step: `python -m loadtests.gpu.step PLAN FD`. It writes its rows as lines of JSON."""

import os
import signal
import sys
from importlib import import_module
from time import monotonic

import msgspec

from loadtests.gpu.bench import Bench
from loadtests.gpu.nvml import Gpu
from loadtests.gpu.plan import STEPS, Plan, place, visible
from loadtests.gpu.rows import Row


def main(plan: Plan, pipe: int) -> None:
    """Do the part; every row is written as soon as it is there."""
    # At the time limit: blocks are left, so that servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))

    def send(row: Row) -> None:
        os.write(pipe, msgspec.json.encode(row) + b"\n")

    gpu = Gpu(visible() if plan.device == "cuda" else None)
    provider, card = place(plan.device, gpu)
    bench = Bench(plan.step, gpu, provider, card, plan.seconds, monotonic() + plan.limit, send)
    step = next(step for step in STEPS if step.number == plan.step)
    import_module(f"loadtests.gpu.{step.module}").measure(bench, plan)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Plan), int(sys.argv[2]))
