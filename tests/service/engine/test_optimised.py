"""Optimised graphs in the cache: made once, used from then on, with the same answers, and never trusted unchecked."""

import hashlib

import numpy as np
import pytest

from service.engine import optimised as module
from service.engine.optimised import Optimised
from service.engine.session import Session, SessionError
from tests.service.hostile_models import identity


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "zooserve" / "graphs"


def load(data: bytes, kept_of: bytes | None = None) -> Session:
    """Load a graph as a load on demand does; `kept_of`: under whose name it is kept."""
    kept_of = kept_of or data
    return Session(data, "cpu", optimised=Optimised(hashlib.sha256(kept_of).hexdigest(), len(kept_of)))


def files(cache):
    return {path.name: path for path in cache.rglob("*") if path.is_file()}


@pytest.mark.parametrize("graph", ["mobilenet", "lenet"])
def test_it_is_made_once_and_answers_as_the_graph(cache, request, graph):
    data = request.getfixturevalue(graph).read_bytes()
    first = load(data)
    assert files(cache).keys() == {"graph.onnx", "weights", "hashes.json"}
    second = load(b"this is not read", data)
    plain = Session(data, "cpu")
    side = plain._session.get_inputs()[0].shape[1]
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    for session in (first, second):
        found, expected = session.run({"images": images}), plain.run({"images": images})
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert session.output_names == plain.output_names
    assert len(list(cache.iterdir())) == 1, "nothing else is left"


@pytest.mark.parametrize("name", ["graph.onnx", "weights", "hashes.json"])
def test_what_is_damaged_is_made_anew(cache, lenet, caplog, name):
    data = lenet.read_bytes()
    load(data)
    path = files(cache)[name]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"\xff" * 9)
    with pytest.raises(SessionError, match=r"cannot load model\.onnx"):
        load(b"this is read", data)
    assert "optimised graph" in caplog.text
    load(data)
    assert files(cache)[name].read_bytes() == whole


def test_a_graph_without_large_weights_is_kept_too(cache):
    data = identity()
    load(data)
    answer = load(b"this is not read", data).run({"x": np.ones((2, 4), np.float32)})
    assert [value.tolist() for value in answer.values()] == [[[1.0] * 4] * 2]


@pytest.mark.parametrize("why", ["no folder", "too large", "no graph"])
def test_where_it_cannot_be_kept_the_graph_serves(cache, lenet, monkeypatch, why):
    data = lenet.read_bytes()
    if why == "no folder":
        cache.parent.mkdir()
        cache.write_bytes(b"")
    elif why == "too large":
        monkeypatch.setattr(module, "_LARGEST", 0)
        monkeypatch.setattr(module, "_SMALL", 0)
    else:
        with pytest.raises(SessionError, match=r"cannot load model\.onnx"):
            load(b"no graph")
        assert not files(cache)
        return
    assert load(data).run({"images": np.zeros((1, 28, 28, 3), np.uint8)})
    assert why == "no folder" or not list(cache.iterdir())
