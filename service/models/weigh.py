"""`python -m service.models.weigh FOLDER CORES DEVICE PARENT < SETTINGS`: what a model takes. `footprint` starts it.

The model is loaded several times: first it is measured what its runs cost, and libraries are initialised.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from time import perf_counter, sleep

import msgspec
from msgspec import structs

from service.engine.cuda import used_on_gpu
from service.engine.memory import give_back, peak, reset_peak, resident
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.footprint import Footprint
from service.models.model import LoadedModel, kind_of
from service.models.selftest import self_test
from service.settings import Settings
from service.telemetry.metrics import Metrics

_LOADS = 3
_LOOK_S = 0.5  # between two looks whether its parent lives
_ROUNDS = 2  # of runs side by side: a first run needs other memory than those that follow


def main(folder: Path, cores: int, device_id: int) -> Footprint:
    """Return the most that a load takes, the first one left out."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    # As at a start without a budget, the first load measures anew what was measured on a busy machine.
    first = structs.replace(settings, memory_mb=0.0, gpu_memory_mb=0.0, model_idle_s=0.0)
    workers, metrics = Workers(cores), Metrics()
    found = []
    for number in range(_LOADS):
        give_back()
        host, device, start = resident(), used_on_gpu(device_id), perf_counter()
        reset_peak()
        model = LoadedModel(folder, Stop(), settings if number else first, workers, metrics, device_id)
        self_test(model.card, model.golden, model.session.run, settings)
        seconds = perf_counter() - start
        _run_side_by_side(model)
        model.golden.clear()
        most = peak() - host
        give_back()
        on_host, on_gpu = max(0, resident() - host), max(0, used_on_gpu(device_id) - device)
        found.append(Footprint(on_host, on_gpu, max(0, most), seconds, model.profile.disturbed))
        del model
    _, *later = found
    return Footprint(*map(max, zip(*map(structs.astuple, later), strict=True)))


def _run_side_by_side(model: LoadedModel) -> None:
    """Let as many runs as there may be at once compute batches of all sizes: each run needs memory of its own.

    Sessions keep what their runs needed. The largest batches come last, side by side.
    """
    profile = model.profile
    sample, most = kind_of(model.card, model.golden).sample, profile.max_batch
    sizes = sorted({1, most, *(2**power for power in range(1, most.bit_length()) if 2**power < most)})
    with ThreadPoolExecutor(profile.max_runs) as threads:
        for size, _ in product(sizes, range(_ROUNDS)):
            list(threads.map(model.session.run, [sample(size)] * profile.max_runs))
        for session, size in product(model.wide, sizes):
            session.run(sample(size))


def _end_with(parent: int) -> None:
    """End this process when the one that started it, with the id `parent`, has ended: nobody reads the answer."""
    while os.getppid() == parent:
        sleep(_LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[4]),), daemon=True).start()
    sys.stdout.buffer.write(msgspec.json.encode(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
