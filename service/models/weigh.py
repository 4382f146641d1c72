"""`python -m service.models.weigh FOLDER CORES DEVICE < SETTINGS`: what a model takes. `footprint` starts it.

The model is loaded several times: first it is measured what its runs cost, and libraries are initialised.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import msgspec

from service.engine.memory import give_back, peak, reset_peak, resident, used_on_gpu
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.footprint import Footprint
from service.models.model import AnyLoaded, kind_of, load_folder
from service.models.selftest import self_test
from service.settings import Settings
from service.telemetry.metrics import Metrics

_LOADS = 3


def main(folder: Path, cores: int, device_id: int) -> Footprint:
    """Return the most that a load takes, the first one left out."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    workers, metrics = Workers(cores), Metrics()
    found = []
    for _ in range(_LOADS):
        give_back()
        host, device, start = resident(), used_on_gpu(device_id), perf_counter()
        reset_peak()
        model = load_folder(folder, Stop(), settings, workers, metrics, device_id)
        self_test(model.card, model.golden, model.session.run, settings)
        seconds = perf_counter() - start
        _run_side_by_side(model)
        model.golden.clear()
        most = peak() - host
        give_back()
        found.append(Footprint(resident() - host, used_on_gpu(device_id) - device, most, seconds))
        del model
    _, *later = found
    return Footprint(*(max(0, *values) for values in zip(*map(msgspec.structs.astuple, later), strict=True)))


def _run_side_by_side(model: AnyLoaded) -> None:
    """Let as many runs as there may be at once compute the largest batch: each needs memory of its own."""
    profile = model.profile
    inputs = kind_of(model.card, model.golden).sample(profile.max_batch)
    with ThreadPoolExecutor(profile.max_runs) as threads:
        list(threads.map(model.session.run, [inputs] * (2 * profile.max_runs)))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
