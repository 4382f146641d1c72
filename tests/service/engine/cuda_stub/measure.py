"""`python -m tests.service.engine.cuda_stub.measure`: what the engine does around a GPU's runs, on a simulated GPU.

    overhead   milliseconds from the last image of a batch that is prepared to its answers, less the run itself
    captures   100,000 runs of mixed sizes, submitted by 16 threads, with CUDA graphs: captures that were spoiled
    plans      convolution plans that are built after readiness, whatever sizes follow each other

No speed of a GPU is measured: runs take the time that they are told to take.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from service.engine.job import Job
from service.engine.providers import Tuning
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.inputs import PixelArray
from service.models.model import load_folder
from service.settings import Settings
from service.tasks import options_of
from service.telemetry.metrics import Metrics
from tests.service.engine.cuda_stub import inside
from tests.service.engine.cuda_stub.stub import Stub, build, packages

ROOT = Path(__file__).parents[4]
BATCH = 32


def overhead(folder: Path, batches: int) -> tuple[list[float], list[float]]:
    """Milliseconds around each run of a full batch, and those of the runs."""
    workers = Workers(os.cpu_count() or 1)
    model = load_folder(folder, Stop(), Settings(device="cuda", max_batch=BATCH), workers, Metrics())
    recipe = model.card.recipe
    pixels = np.zeros((recipe.height, recipe.width, 3), np.uint8)
    options = options_of(model.card.task, {})

    async def main() -> list[Job]:
        jobs: list[Job] = []
        for _ in range(batches):
            wave = [Job(PixelArray(pixels, model.card, options), perf_counter() + 60) for _ in range(3 * BATCH)]
            for one in wave:
                model.batcher.submit(one)
            await asyncio.gather(*(one.future for one in wave))
            jobs += wave
        return jobs

    runs: dict[float, list[Job]] = {}
    for one in asyncio.run(main()):
        if one.batch_size == BATCH:
            runs.setdefault(one.run, []).append(one)
    around, inner = [], []
    for start, jobs in runs.items():
        ran = jobs[0].ran - start
        waited = start - max(one.prepared for one in jobs)
        finished = max(one.finished for one in jobs) - jobs[0].ran
        inner.append(1000 * ran)
        around.append(1000 * (finished + (waited if waited < 0.002 else 0.0)))
    workers.close()
    return around, inner


def captures(folder: Path, runs: int) -> tuple[int, int, int, float]:
    """Spoiled captures, captures, failed runs, and seconds."""
    made = inside.lanes(folder / "model.onnx", (1, 2, 4, 8, 16, 32), 2, Tuning(cuda_graphs=True))
    chance = random.Random(0)
    sizes = [chance.choice((1, 2, 3, 4, 7, 8, 16, 31, 32)) for _ in range(runs)]
    images = {rows: inside.images(rows) for rows in set(sizes)}
    failed = 0

    def run(rows: int) -> None:
        nonlocal failed
        try:
            made.run(images[rows])
        except Exception:
            failed += 1

    start = perf_counter()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(run, sizes))
    found = inside.counts()
    return found.captures_spoiled, found.captures, failed, perf_counter() - start


def plans(folder: Path, changes: int) -> int:
    """Plans built after readiness."""
    made = inside.lanes(folder / "model.onnx", (1, 2, 4, 8, 16, 32), 2)
    chance, ready = random.Random(0), inside.counts()
    for _ in range(changes):
        made.run(inside.images(chance.choice((1, 2, 3, 5, 8, 13, 32))))
    return inside.counts().since(ready).plans_built


def main() -> None:
    """Print the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="the store of exported models")
    parser.add_argument("--runs", type=int, default=100_000, help="runs of `captures`")
    given = parser.parse_args()
    from tests.service.engine.cuda_stub import measure  # what is called is found again by the name of its module

    with tempfile.TemporaryDirectory() as folder:
        stub = Stub(build(Path(folder)), packages(lambda text: print(text, file=sys.stderr)))
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")  # measured profiles of a simulated GPU are not kept
        for name in ("mobilenet_v2",):
            around, inner = stub.call(measure.overhead, given.models / name / "1", 20, run_us="1:1000,32:5000")
            print(
                f"overhead of {name}, batch {BATCH}: median {median(around):.2f} ms around runs of "
                f"{median(inner):.2f} ms ({len(around)} runs)",
                flush=True,
            )
        lenet = given.models / "lenet5" / "1"
        spoiled, made, failed, seconds = stub.call(measure.captures, lenet, given.runs, capture_us=500)
        print(
            f"captures: {spoiled} of {made} spoiled, {failed} of {given.runs} runs failed, {seconds:.0f} s", flush=True
        )
        print(f"plans built after readiness, 2,000 changes of size: {stub.call(measure.plans, lenet, 2000)}")


if __name__ == "__main__":
    main()
