"""What the engine is to do on a GPU that serves: no plans after readiness, and CUDA graphs on one thread.

Functions without `test_` run in a process of their own, which `cuda_stub.call` starts.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import pytest

from service.engine.providers import Tuning
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.model import LoadedModel
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.engine.cuda_stub import inside


def plans_built_after_readiness(folder: Path, sizes: tuple[int, ...]) -> int:
    workers = Workers(2)
    model = LoadedModel(folder, Stop(), Settings(device="cuda", max_batch=max(sizes)), workers, Metrics())
    workers.close()
    ready = inside.counts()
    with ThreadPoolExecutor(1) as thread:  # another than that which loaded the model
        list(thread.map(lambda rows: model.session.run(inside.images(rows)), sizes))
    return inside.counts().since(ready).plans_built


def test_no_plan_is_built_after_readiness_whatever_sizes_follow_each_other(cuda_stub, models, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # of measured profiles
    sizes = tuple(size for pair in permutations((1, 2, 4, 8, 16), 2) for size in pair)
    assert cuda_stub.call(plans_built_after_readiness, models / "lenet5" / "1", sizes) == 0


def captures_under_threads(model: Path, threads: int) -> dict[str, object]:
    """Run batches of several sizes from many threads on one lane with CUDA graphs."""
    lanes = inside.lanes(model, (1, 4, 8), tuning=Tuning(cuda_graphs=True))
    failed = []

    def work(number: int) -> None:
        for turn in range(12):
            rows = (1, 4, 8)[(number + turn) % 3]
            try:
                assert len(lanes.run(inside.images(rows))["probabilities"]) == rows
            except Exception as error:
                failed.append(str(error))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return {
        "failed": failed,
        "spoiled": inside.counts().captures_spoiled,
        "captured": inside.threads("capture"),
        "launched": inside.threads("launch"),
    }


def test_graphs_are_captured_and_replayed_on_one_thread_and_none_is_spoiled(cuda_stub, lenet):
    found = cuda_stub.call(captures_under_threads, lenet, 16, capture_us=2000, run_us="1:200,8:400")
    assert found["failed"] == []
    assert found["spoiled"] == 0
    assert len(found["captured"]) == 1
    assert found["launched"] == found["captured"]


def serve_while_others_load(model: Path, graphs: bool) -> tuple[list[str], inside.Counts]:
    """Run batches on a lane while lanes of other models are loaded and captured, two at a time."""
    lanes = inside.lanes(model, (1, 4), tuning=Tuning(cuda_graphs=graphs))
    over = threading.Event()
    failed = []

    def serve() -> None:
        while not over.is_set():
            for rows in (1, 4):
                try:
                    lanes.run(inside.images(rows))
                except Exception as error:
                    failed.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    before = inside.counts()
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda _: inside.lanes(model, (1, 2, 4), 2, tuning=Tuning(cuda_graphs=True)), range(3)))
    for other in others:
        other.close()
    over.set()
    thread.join()
    return failed, inside.counts().since(before)


@pytest.mark.parametrize("graphs", [False, True])
def test_no_capture_is_spoiled_by_what_other_models_do(cuda_stub, lenet, graphs):
    failed, counts = cuda_stub.call(serve_while_others_load, lenet, graphs, capture_us=5000, run_us="1:200")
    assert failed == []
    assert counts.captures == 18
    assert counts.captures_spoiled == 0
