"""What goes wrong on a GPU, in the words of the real onnxruntime-gpu: it is refused, or recognised, with its reason.

Functions without `test_` run in a process of their own, which `cuda_stub.call` starts.
"""

from pathlib import Path

import pytest

from service.engine.device_errors import BrokenDeviceError
from service.engine.probe import check_device
from service.engine.session import Session, SessionError
from tests.service.engine.cuda_stub import inside
from tests.service.engine.cuda_stub.stub import Stub

MIB = 1 << 20


def load(model: Path, device_id: int = 0) -> str:
    return Session(model, "cuda", device_id).provider


@pytest.mark.parametrize(
    ("device_id", "settings", "reason"),
    [
        (1, {}, "Invalid device ID: 1"),
        (-1, {}, "Invalid device ID: -1"),
        (2, {"gpus": 2}, "Invalid device ID: 2"),
        (0, {"gpus": 0}, "CUDA failure 100: no CUDA-capable device is detected"),
        (0, {"memory": MIB}, "Failed to allocate memory for requested buffer"),
        (0, {"fail": "cublasCreate_v2:3:1"}, "CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(cuda_stub, mobilenet, device_id, settings, reason):
    with pytest.raises(SessionError, match=f"(?s)cannot load model.onnx.*{reason}"):
        cuda_stub.call(load, mobilenet, device_id, **settings)


def test_without_cuda_s_libraries_the_cpu_does_not_step_in(cuda_stub, lenet, tmp_path):
    (tmp_path / "libcudart.so.13").touch()  # none is looked for elsewhere then
    missing = Stub(tmp_path, cuda_stub.packages)
    with pytest.raises(SessionError, match="CUDAExecutionProvider was asked for, but ONNX Runtime fell back to CPU"):
        missing.call(load, lenet)


def run_out_of_memory(model: Path, room: int) -> tuple[list[str], int]:
    session = Session(model, "cuda")
    session.run(inside.images(1, 224, 224))
    inside.set_memory(inside.counts().bytes + room)
    answers = []
    for act in (
        lambda: session.run(inside.images(64, 224, 224)),
        lambda: inside.lanes(model, (64,), side=224),
    ):
        with pytest.raises(MemoryError) as error:
            act()
        answers.append(str(error.value))
        del error  # its frames hold the buffers that were made before it
    return answers, len(session.run(inside.images(1, 224, 224))["probabilities"])


@pytest.mark.parametrize("room", [10 * MIB, 50 * MIB])
def test_without_memory_a_run_and_a_lane_end_in_a_memory_error(cuda_stub, mobilenet, room):
    answers, rows = cuda_stub.call(run_out_of_memory, mobilenet, room)
    for answer in answers:
        assert "Failed to allocate memory for requested buffer" in answer
    assert rows == 1, "a smaller run still has room"


def no_memory_for_a_product(model: Path) -> str:
    session = Session(model, "cuda")
    inside.fail("cublasSgemm_v2", 3)
    with pytest.raises(MemoryError) as error:
        session.run(inside.images(1))
    return str(error.value)


def test_a_library_without_memory_is_a_memory_error(cuda_stub, lenet):
    assert "CUBLAS_STATUS_ALLOC_FAILED" in cuda_stub.call(no_memory_for_a_product, lenet)


def break_context(model: Path, function: str, code: int) -> list[str]:
    """Break a context, and say what each call from then on ends with."""
    session, bound = Session(model, "cuda"), inside.lanes(model, (1,))
    for each in (session, bound):
        each.run(inside.images(1))
    inside.fail(function, code)
    answers = []
    for act in (
        lambda: session.run(inside.images(1)),
        lambda: session.run(inside.images(1)),
        lambda: inside.lanes(model, (1,)),
        lambda: bound.run(inside.images(1)),
        lambda: Session(model, "cuda"),
    ):
        try:
            act()
            answers.append("answered")
        except Exception as error:
            answers.append(type(error).__name__)
    return answers


@pytest.mark.parametrize(
    ("function", "code"),
    [
        *[("cudaMemcpyAsync", code) for code in (46, 214, 702, 709, 806)],
        *[("cudaLaunchKernel", code) for code in (700, 710, 718)],
        ("cudaStreamSynchronize", 999),
    ],
)
def test_a_broken_context_is_recognised_wherever_it_shows(cuda_stub, lenet, function, code):
    assert cuda_stub.call(break_context, lenet, function, code) == [BrokenDeviceError.__name__] * 5


@pytest.mark.parametrize("function", ["cublasSgemm_v2", "cudnnBackendExecute"])
def test_what_breaks_in_a_library_is_recognised_at_the_next_call(cuda_stub, lenet, function):
    assert cuda_stub.call(break_context, lenet, function, 700) == ["Fail", *[BrokenDeviceError.__name__] * 4]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"gpus": 0}, "no CUDA-capable device is detected"),
        ({"memory": 0}, "Failed to allocate memory|out of memory"),
    ],
)
def test_a_server_tries_the_gpu_before_it_starts(cuda_stub, settings, reason):
    if reason is None:
        cuda_stub.call(check_device, "cuda", **settings)
        return
    with pytest.raises(Exception, match=reason):
        cuda_stub.call(check_device, "cuda", **settings)
