"""The simulated GPU does what its README says, as far as ONNX Runtime shows it."""

import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.engine.cuda import Stream
from service.engine.providers import Tuning
from service.engine.session import Session
from tests.service.engine.apart import CrashError
from tests.service.engine.cuda_stub import inside


def seconds_by_batch(model: Path, graphs: bool, sizes: tuple[int, ...]) -> list[float]:
    lanes = inside.lanes(model, sizes, tuning=Tuning(cuda_graphs=graphs))
    seconds = []
    for size in sizes:
        start = time.perf_counter()
        lanes.run(inside.images(size))
        seconds.append(time.perf_counter() - start)
    return seconds


@pytest.mark.parametrize("graphs", [False, True])
def test_a_run_takes_the_time_of_its_batch(cuda_stub, lenet, graphs):
    seconds = cuda_stub.call(seconds_by_batch, lenet, graphs, (1, 4, 16), run_us="1:50000,8:225000")
    for measured, expected in zip(seconds, (0.05, 0.125, 0.225), strict=True):
        assert expected <= measured < expected + 0.07


def seconds_side_by_side(model: Path) -> float:
    lanes = inside.lanes(model, (1,), 2)
    threads = [threading.Thread(target=lambda: [lanes.run(inside.images(1)) for _ in range(4)]) for _ in range(2)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def test_a_gpu_computes_one_run_at_a_time(cuda_stub, lenet):
    assert 0.16 <= cuda_stub.call(seconds_side_by_side, lenet, run_us="1:20000") < 0.5


def seconds_of_two_runs(model: Path) -> tuple[float, float]:
    session = Session(model, "cuda")
    start = time.perf_counter()
    session.run(inside.images(64))
    first = time.perf_counter() - start
    start = time.perf_counter()
    session.run(inside.images(64))
    return first, time.perf_counter() - start


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [
        ({"plan_us": 100_000}, 0.3, 0.0),  # three convolutions
        ({"copy_us_per_mb": 300_000}, 0.045, 0.045),  # 150 kB to the device
    ],
)
def test_plans_and_copies_take_time(cuda_stub, lenet, setting, first, second):
    measured = cuda_stub.call(seconds_of_two_runs, lenet, **setting)
    assert first <= measured[0] < first + 0.15
    assert second <= measured[1] < second + 0.15


def counts_of_two_graphs(model: Path) -> dict[str, object]:
    start = time.perf_counter()
    lanes = inside.lanes(model, (1, 2), tuning=Tuning(cuda_graphs=True))
    for _ in range(5):
        lanes.run(inside.images(1))
        lanes.run(inside.images(2))
    return {
        "seconds": time.perf_counter() - start,
        "counts": inside.counts(),
        "captured": inside.threads("capture"),
        "launched": inside.threads("launch"),
        "lane": lanes._threads[0].native_id,
    }


def test_captures_and_launches_are_counted_with_their_thread(cuda_stub, lenet):
    found = cuda_stub.call(counts_of_two_graphs, lenet, capture_us=50_000)
    assert found["captured"] == found["launched"] == {found["lane"]}
    assert found["counts"].captures == 2
    assert found["counts"].captures_spoiled == 0
    assert found["counts"].graph_launches >= 6
    assert 0.1 <= found["seconds"] < 0.5


def spoil(model: Path, what: str) -> tuple[int, str]:
    """Use the GPU in a way that a capture forbids while another thread captures, with a session of its own."""
    session = Session(model, "cuda", tuning=Tuning(cuda_graphs=True), batch=1, stream=Stream(0))
    failure = []

    def capture() -> None:
        try:
            session.capture(inside.images(1))
        except Exception as error:
            failure.append(str(error))

    thread = threading.Thread(target=capture)
    thread.start()
    while not inside.counts().captures:
        time.sleep(0.001)
    with pytest.raises(Exception, match="operation not permitted when stream is capturing"):
        Session(model, "cuda") if what == "load" else ort.OrtValue.ortvalue_from_numpy(np.zeros(1), "cuda", 0)
    thread.join()
    return inside.counts().captures_spoiled, failure[0]


@pytest.mark.parametrize("what", ["load", "copy"])
def test_another_thread_s_work_spoils_a_capture(cuda_stub, lenet, what):
    spoiled, failure = cuda_stub.call(spoil, lenet, what, capture_us=300_000)
    assert spoiled == 1
    assert "operation failed due to a previous error during capture" in failure


def two_gpus(model: Path) -> list[str]:
    return [str(len(Session(model, "cuda", number).run(inside.images(1))["probabilities"])) for number in (0, 1)]


def memory(model: Path) -> tuple[int, int]:
    session = Session(model, "cuda")
    session.run(inside.images(64))
    peak = inside.counts().bytes
    del session
    return peak, inside.counts().bytes


def crash() -> None:
    import os

    print("these are its last words", flush=True)
    os.abort()


def test_gpus_memory_and_crashes(cuda_stub, lenet):
    assert cuda_stub.call(two_gpus, lenet, gpus=2) == ["1", "1"]
    used, left = cuda_stub.call(memory, lenet)
    assert used > 2_000_000
    assert left < used
    with pytest.raises(CrashError, match=r"(?s)ended with -6.*these are its last words"):
        cuda_stub.call(crash)


def answers_of_four_runs(model: Path) -> list[str]:
    session = Session(model, "cuda")
    answers = []
    for _ in range(4):
        try:
            session.run(inside.images(1))
            answers.append("answered")
        except Exception as error:
            answers.append(type(error).__name__)
    return answers


@pytest.mark.parametrize(
    ("fail", "answers"),
    [
        ("cublasSgemm_v2:13:3", ["answered", "Fail", "answered", "answered"]),
        ("cudaLaunchKernel:701:1", ["Fail", "answered", "answered", "answered"]),
        ("cublasSgemm_v2:700:3", ["answered", "Fail", "BrokenDeviceError", "BrokenDeviceError"]),
    ],
)
def test_only_what_breaks_a_context_lasts(cuda_stub, lenet, fail, answers):
    assert cuda_stub.call(answers_of_four_runs, lenet, fail=fail) == answers
