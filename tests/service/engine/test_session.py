"""Sessions on the CPU, with the very code that a GPU uses: fixed buffers, known sizes, the provider that was asked."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from service.engine import graph as graph_module
from service.engine.graph import SessionError
from service.engine.providers import CPU, CUDA, TENSORRT, ProviderError, Tuning, check, choose, requested
from service.engine.session import Session

SIZE = 28


@pytest.fixture(scope="module")
def model(models):
    return models / "lenet5" / "1" / "model.onnx"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)


def test_a_bound_session_answers_as_a_free_one(model, images):
    free, bound, cold = Session(model, "cpu"), Session(model, "cpu"), []
    bound.bind((1, 4), 2, lambda: cold.append(1))
    for size in (1, 4):
        expected = free.run(images[:size])["probabilities"]
        first = bound.run(images[:size])["probabilities"]
        kept = first.copy()
        bound.run(images[size : 2 * size])
        bound.run(images[size : 2 * size])
        assert first == pytest.approx(expected, abs=1e-6)
        assert (first == kept).all(), "an answer lies in a buffer that is used again"
    assert cold == []
    assert len(bound.run(images[:3])["probabilities"]) == 3
    assert cold == [1], "a size that was not warmed up is counted"


def test_lanes_are_shared_by_many_threads(model, images):
    session = Session(model, "cpu")
    session.bind((1, 4), 2, lambda: None)
    expected = [Session(model, "cpu").run(images[i : i + 1])["probabilities"][0] for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(
            lambda _: [session.run(images[i : i + 1])["probabilities"][0] for i in range(8)], range(20)
        ):
            assert np.allclose(answers, expected, atol=1e-6)


def test_a_graph_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match=r"cannot load model\.onnx"):
        Session(tmp_path / "model.onnx", "cpu")


@pytest.mark.parametrize("words", ["Failed to allocate memory for requested buffer of size 1", "CUDA out of memory"])
def test_no_memory_is_a_memory_error(model, images, monkeypatch, words):
    session = Session(model, "cpu")

    class Full:
        def run(self, *_):
            raise RuntimeError(f"[ONNXRuntimeError] : {words}")

    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(MemoryError, match="memory"):
        session.run(images)


def test_the_cpu_is_never_a_silent_fallback(model, monkeypatch):
    check(CPU, [CPU])
    with pytest.raises(ProviderError, match="fell back to CPUExecutionProvider"):
        check(CUDA, [CPU])
    # A build with CUDA on a machine without a GPU: ONNX Runtime itself only prints a warning.
    monkeypatch.setattr(graph_module, "choose", lambda _: CUDA)
    with pytest.raises(SessionError, match=r"CUDAExecutionProvider was asked for, but ONNX Runtime fell back"):
        Session(model, "cuda")


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_build_without_the_provider_says_what_to_install(device):
    assert choose("auto") == choose("cpu") == CPU
    with pytest.raises(ProviderError, match=rf"ZOOSERVE_DEVICE={device}.*zooserve\[gpu\]"):
        choose(device)


@pytest.mark.parametrize(("provider", "names"), [(CPU, [CPU]), (CUDA, [CUDA, CPU]), (TENSORRT, [TENSORRT, CUDA, CPU])])
def test_the_wanted_provider_comes_first_with_its_options(provider, names, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    providers = requested(provider, 3, Tuning("HEURISTIC", cuda_graphs=True))
    assert [name for name, _ in providers] == names
    for name, options in providers:
        if name == CUDA:
            assert options["device_id"] == 3
            assert options["cudnn_conv_algo_search"] == "HEURISTIC"
            assert options["enable_cuda_graph"] is True
