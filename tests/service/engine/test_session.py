"""Sessions on the CPU, with the very code that a GPU uses: fixed buffers, known sizes, the provider that was asked."""

import gc
import shutil
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.engine import session as session_module
from service.engine.memory import give_back, resident
from service.engine.pieces import Pieces
from service.engine.providers import CPU, CUDA, TENSORRT, ProviderError, Tuning, check, choose, requested
from service.engine.session import Session, SessionError
from service.engine.stop import Stop
from tests.service.engine.host import Host
from tests.service.hostile_models import (
    KINDS_OF_REFERENCE,
    endless_constant,
    endless_run,
    identity,
    with_external_data,
)

SIZE = 28


@pytest.fixture(scope="module")
def model(models):
    return models / "lenet5" / "1" / "model.onnx"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("size", [1, 4])
def test_a_bound_session_answers_as_a_free_one(model, images, size):
    free, bound = Session(model, "cpu"), Session(model, "cpu", batch=size, stream=Host())
    expected = free.run({"images": images[:size]})["probabilities"]
    first = bound.run({"images": images[:size]})["probabilities"]
    kept = first.copy()
    bound.run({"images": images[size : 2 * size]})
    assert first == pytest.approx(expected, abs=1e-6)
    assert (first == kept).all(), "an answer lies in a buffer that is used again"
    pieces = Pieces([images[row : row + 1] for row in range(size)])
    assert (bound.run({"images": pieces})["probabilities"] == first).all()
    with pytest.raises(ValueError, match=rf"images is uint8 \(3, 28, 28, 3\), its buffer uint8 \({size}, 28, 28, 3\)"):
        bound.run({"images": images[:3]})
    with pytest.raises(ValueError, match="its buffer uint8"):
        bound.run({"images": Pieces([*pieces, images[:1]])})
    with pytest.raises(ValueError, match="its buffer uint8"):
        bound.run({"images": images[:size].astype(np.int8)})


@pytest.mark.parametrize(("dimension", "words"), [("rows", ""), (4, ""), (2, "it is 2"), (None, "without a name")])
def test_the_batch_is_fixed_whatever_it_is_called(dimension, words):
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [dimension, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", rows[:1], rows[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 9
    if words:
        with pytest.raises(SessionError, match=f"the batch of model.onnx cannot be made 4: {words}|it is {words}"):
            Session(proto.SerializeToString(), "cpu", batch=4, stream=Host())
        return
    session = Session(proto.SerializeToString(), "cpu", batch=4, stream=Host())
    assert session.run({"x": np.ones((4, 2), np.float32)})["y"].tolist() == [[1.0, 1.0]] * 4


def test_a_graph_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match=r"cannot load model\.onnx"):
        Session(tmp_path / "model.onnx", "cpu")


@pytest.mark.parametrize("message", ["Failed to allocate memory for requested buffer of size 1", "CUDA out of memory"])
def test_no_memory_is_a_memory_error(model, images, monkeypatch, message):
    session = Session(model, "cpu")

    class Full:
        def run(self, *_):
            raise RuntimeError(f"[ONNXRuntimeError] : {message}")

    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(MemoryError, match="memory"):
        session.run({"images": images})


def test_the_cpu_is_never_a_silent_fallback(model, monkeypatch):
    check(CPU, [CPU])
    with pytest.raises(ProviderError, match="fell back to CPUExecutionProvider"):
        check(CUDA, [CPU])
    with pytest.raises(ProviderError, match=r"fell back to CUDAExecutionProvider.*libnvinfer"):
        check(TENSORRT, [CUDA, CPU])
    # A build with CUDA on a machine without a GPU: ONNX Runtime itself only prints a warning.
    monkeypatch.setattr(session_module, "choose", lambda _: CUDA)
    with pytest.raises(SessionError, match=r"CUDAExecutionProvider was asked for, but ONNX Runtime fell back"):
        Session(model, "cuda")


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_build_without_the_provider_says_what_to_install(device):
    assert choose("auto") == choose("cpu") == CPU
    with pytest.raises(ProviderError, match=rf"ZOOSERVE_DEVICE={device}.*pip install -e '\.\[gpu\]'"):
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
            assert "user_compute_stream" not in options


LOCATIONS = ("w.bin", ".w.bin", "sub/w.bin", "../w.bin", "{here}/w.bin", "/proc/self/environ", "*/_ORT_MEM_ADDR_/*", "")


@pytest.mark.parametrize("given", ["bytes", "path"])
@pytest.mark.parametrize("kind", KINDS_OF_REFERENCE)
@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_in_another_file_are_never_read(tmp_path, monkeypatch, kind, location, given):
    """Neither beside the graph nor in the working directory, from where bytes are resolved."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in (folder / "w.bin", folder / ".w.bin", folder / "sub/w.bin", tmp_path / "w.bin"):
        place.write_bytes(np.ones(4, np.float32).tobytes())
    monkeypatch.chdir(folder)
    graph = with_external_data(kind, location.format(here=folder))
    (folder / "model.onnx").write_bytes(graph)
    with pytest.raises(SessionError, match=r"keeps weights in another file") as refusal:
        Session(graph if given == "bytes" else folder / "model.onnx", "cpu")
    assert "onnx.save" in str(refusal.value)


def test_what_onnx_itself_saves_beside_a_graph_is_refused_and_inside_it_is_served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", rows[:1], rows[1:], [weights]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, "beside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").stat().st_size == 64
    with pytest.raises(SessionError, match="another file"):
        Session(tmp_path / "beside.onnx", "cpu")
    onnx.save(onnx.load("beside.onnx"), "inside.onnx")
    answer = Session(tmp_path / "inside.onnx", "cpu").run({"x": np.ones((1, 4), np.float32)})
    assert answer["y"].tolist() == [[4.0] * 4]


def test_a_file_that_changes_later_changes_no_answer(model, images, tmp_path):
    path = shutil.copy(model, tmp_path / "model.onnx")
    session = Session(path, "cpu")
    before = session.run({"images": images})["probabilities"]
    with path.open("r+b") as file:  # in place: the same inode, as a mapping of it would see
        file.write(bytes(path.stat().st_size))
    assert (session.run({"images": images})["probabilities"] == before).all()


def test_the_bytes_of_a_graph_are_kept_once(tmp_path):
    """ONNX Runtime's Python layer would keep them for as long as the session lives."""
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4000]) for name in ("x", "y")]
    weights = numpy_helper.from_array(np.random.default_rng(0).random((4000, 4000), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_model(
        helper.make_graph([node], "g", rows[:1], rows[1:], [weights]), opset_imports=[helper.make_opsetid("", 17)]
    )
    graph.ir_version = 9
    data = graph.SerializeToString()
    watched = weakref.ref(session := Session(data, "cpu"))
    assert sys.getrefcount(data) == 2, "nobody else holds the bytes"
    size = len(data)
    del data, graph, weights
    gc.collect()
    before = psutil.Process().memory_info().rss
    del session
    gc.collect()
    assert watched() is None
    assert before - psutil.Process().memory_info().rss < 1.5 * size


def test_an_error_is_not_tried_again_on_the_cpu(model, monkeypatch):
    made = []
    real = ort.InferenceSession

    def refuse(*arguments, **options):
        made.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    session = Session(model, "cpu")
    assert [options["enable_fallback"] for options in made] == [0]
    assert session._session._enable_fallback is False


@pytest.mark.parametrize("graph", [endless_run, endless_constant])
def test_a_run_that_does_not_end_is_ended(graph):
    stop = Stop()
    session = Session(graph(), "cpu", stop=stop)
    threading.Timer(0.3, stop.ask).start()
    with pytest.raises(Exception, match="terminate flag"):
        session.run({"x": np.ones((1, 4), np.float32)})
    with pytest.raises(SessionError):  # nor is anything begun after that
        Session(identity(), "cpu", stop=stop)


def test_engines_of_tensorrt_are_kept_by_graph_and_batch(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = [
        requested(TENSORRT, 0, Tuning(fp16=True), graph, batch, stream=7)[0][1]
        for graph, batch in ((b"one", 1), (b"other", 1), (b"one", 1), (b"one", 2))
    ]
    folders = [one["trt_engine_cache_path"] for one in options]
    assert folders[0] == folders[2]
    assert len(set(folders)) == 3
    assert len({one["trt_timing_cache_path"] for one in options}) == 1
    assert options[0]["trt_fp16_enable"] is True
    assert options[0]["trt_cuda_graph_enable"] is False
    assert options[0]["user_compute_stream"] == "7"


def test_where_no_engines_can_be_kept_tensorrt_builds_them_at_each_start(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (name, options), *_ = requested(TENSORRT, 0, Tuning(), b"one", 1)
    assert name == TENSORRT
    assert not [option for option in options if "cache" in option]


UNREADABLE = "[ONNXRuntimeError] : 11 : EP_FAIL : TensorRT EP could not deserialize engine from cache: {}/one.engine"


@pytest.mark.parametrize(
    ("errors", "left"),
    [
        ([], ["one.engine"]),
        ([UNREADABLE], []),
        (["out of memory"], ["one.engine"]),
        ([UNREADABLE, "out of memory"], []),
        ([UNREADABLE, UNREADABLE], []),
    ],
    ids=str,
)
def test_engines_that_cannot_be_read_are_built_anew(monkeypatch, tmp_path, model, errors, left):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(session_module, "choose", lambda _: TENSORRT)
    monkeypatch.setattr(session_module, "check", lambda *_: None)
    folder = Path(requested(TENSORRT, 0, Tuning(), model.read_bytes())[0][1]["trt_engine_cache_path"])
    (folder / "one.engine").touch()
    real, raised = ort.InferenceSession, iter(errors)

    def make(data, options, **_):
        if error := next(raised, ""):
            raise RuntimeError(error.format(folder))
        return real(data, options, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", make)
    if errors[-1:] == ["out of memory"] or len(errors) == 2:
        with pytest.raises(SessionError, match=r"out of memory|deserialize"):
            Session(model, "tensorrt")
    else:
        Session(model, "tensorrt")
    assert [path.name for path in folder.iterdir()] == left


def test_a_warm_session_keeps_no_memory_that_only_its_first_run_needed(models):
    data = (models / "yolov4_tiny" / "1" / "model.onnx").read_bytes()
    images = {"images": np.zeros((1, 416, 416, 3), np.uint8)}
    grown = []
    for first in (Session.run, Session.warm_up):
        session = Session(data, "cpu")
        give_back()
        before = resident()
        first(session, images)
        expected = session.run(images)
        give_back()
        grown.append(resident() - before)
        assert all(np.array_equal(value, expected[name]) for name, value in session.run(images).items())
    cold, warm = grown
    assert warm < 0.75 * cold
