"""A folder, loaded: what differs between images and tensors, and fixed buffers as on a GPU."""

import ctypes

import numpy as np
import onnxruntime as ort
import pytest

from service.engine.assembly import Concatenation, ImageRows
from service.engine.session import Session
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models import model as model_module
from service.models.model import load_folder, takes_images
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.hostile_models import identity, write_folder


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load a folder with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    workers = Workers(2)
    yield lambda folder, **settings: load_folder(folder, Stop(), Settings(**settings), workers, Metrics())
    workers.close()


@pytest.mark.parametrize(("max_batch", "max_runs"), [(0, 2), (1, 2), (4, 1)])
def test_images_are_rows_of_a_buffer(load, models, max_batch, max_runs):
    model = load(models / "lenet5/1", max_batch=max_batch)
    assert takes_images(model)
    assert isinstance(model.batcher._assembly, ImageRows)
    assert model.profile.max_batch == (max_batch or model.profile.max_batch)
    assert model.profile.max_runs == max_runs, "a worker is left to prepare images where batches are wanted"
    assert model.golden.keys() == {golden.photo for golden in model.card.golden}


@pytest.mark.parametrize("max_batch", [0, 4])
def test_tensors_are_concatenated(load, tmp_path, max_batch):
    model = load(write_folder(tmp_path, "same", identity()), max_batch=max_batch)
    assert not takes_images(model)
    assert isinstance(model.batcher._assembly, Concatenation)
    assert model.profile.max_runs == 2
    assert model.golden.keys() == {model.card.golden.file}


def test_on_a_gpu_lanes_run_fixed_sizes(load, models, monkeypatch):
    """The buffers lie in the CPU's memory here; sizes, tuning and warm-up are those of a GPU."""
    free = Session(models / "lenet5/1/model.onnx", "cpu")
    made, from_numpy = ort.OrtValue.ortvalue_from_shape_and_type, ort.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(Session, "on_gpu", True)
    monkeypatch.setattr(
        ort.OrtValue, "ortvalue_from_shape_and_type", lambda shape, kind, *_: made(shape, kind, "cpu", 0)
    )
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", lambda array, *_: from_numpy(array, "cpu", 0))
    monkeypatch.setattr("service.engine.binding.cuda_copy", lambda: ctypes.memmove)
    pinned = []
    monkeypatch.setattr(model_module, "pin", pinned.append)
    model = load(models / "lenet5/1", max_batch=8)
    assert model.batcher._assembly._sizes == model.profile.sizes == model.session.sizes
    assert {1, 8} <= set(model.profile.sizes) <= {1, 2, 4, 8}
    assert len(pinned) == 1
    assert model.profile.max_runs == model.session.count <= 3
    images = np.random.default_rng(0).integers(0, 256, (11, 28, 28, 3), np.uint8)
    expected = free.run({"images": images})["probabilities"]
    for rows in (1, 3, 8, 11):
        answers = model.session.run({"images": images[:rows]})["probabilities"]
        assert answers == pytest.approx(expected[:rows], abs=1e-6)
