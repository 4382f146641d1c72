"""A folder, loaded: what differs between images and tensors, and fixed buffers as on a GPU."""

import gc
from functools import partial

import numpy as np
import pytest

from service.engine.assembly import Concatenation, ImageRows
from service.engine.lanes import Lanes
from service.engine.profile import GPU_SIZES
from service.engine.providers import CPU, CUDA
from service.engine.session import Session, SessionError
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models import model as model_module
from service.models import on_gpu
from service.models.model import LoadedModel, takes_images
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.engine.host import Host
from tests.service.hostile_models import identity, write_folder


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load a folder with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    workers = Workers(2)
    yield lambda folder, **settings: LoadedModel(folder, Stop(), Settings(**settings), workers, Metrics())
    workers.close()


@pytest.mark.parametrize("max_batch", [0, 1, 4])
def test_images_are_rows_of_a_buffer(load, models, max_batch):
    model = load(models / "lenet5/1", max_batch=max_batch)
    assert takes_images(model)
    assert isinstance(model.batcher._assembly, ImageRows)
    assert model.profile.max_batch == (max_batch or model.profile.max_batch)
    assert model.profile.max_runs == 2
    assert model.golden.keys() == {golden.photo for golden in model.card.golden}


@pytest.mark.parametrize("max_batch", [0, 4])
def test_tensors_are_concatenated(load, tmp_path, max_batch):
    model = load(write_folder(tmp_path, "same", identity()), max_batch=max_batch)
    assert not takes_images(model)
    assert isinstance(model.batcher._assembly, Concatenation)
    assert model.profile.max_runs == 2
    assert model.golden.keys() == {model.card.golden.file}


def test_only_models_of_images_have_engines_of_tensorrt(load, models, tmp_path, monkeypatch):
    """Tensors come in any shape, and each would need an engine of its own."""
    chosen = []
    monkeypatch.setattr(model_module, "choose", lambda device: (chosen.append(device), CPU)[1])
    for folder in (models / "lenet5/1", write_folder(tmp_path, "same", identity())):
        with pytest.raises(SessionError):
            load(folder, device="tensorrt")
    assert chosen == ["tensorrt", "cuda"]


@pytest.mark.parametrize("max_batch", [0, 8])
def test_on_a_gpu_lanes_have_fixed_buffers(load, models, monkeypatch, max_batch):
    """The buffers lie in the CPU's memory here; sizes, tuning and warm-up are those of a GPU."""
    free = Session(models / "lenet5/1/model.onnx", "cpu")
    pinned = []
    as_on_a_gpu(monkeypatch, pinned)
    for _ in range(2):  # measured, then recalled
        model = load(models / "lenet5/1", max_batch=max_batch)
        sizes = model.batcher._assembly._sizes
        assert sizes == tuple(size for size in GPU_SIZES if size <= model.profile.max_batch)
        assert max_batch in (0, model.profile.max_batch)
        assert 1 <= model.profile.max_runs == model.session.count <= 3
        images = np.random.default_rng(0).integers(0, 256, (37, 28, 28, 3), np.uint8)
        expected = free.run({"images": images})["probabilities"]
        assert model.session.run({"images": images})["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert len(pinned) == 2


def test_tensors_have_two_lanes_on_a_gpu(load, tmp_path, monkeypatch):
    as_on_a_gpu(monkeypatch, [])
    model = load(write_folder(tmp_path, "same", identity()))
    assert model.session.count == model.profile.max_runs == 2
    assert model.session.sizes == ()
    assert model.session.run({"x": np.ones((7, 4), np.float32)})["y"].shape == (7, 4)


def test_lanes_end_with_the_model(load, models, monkeypatch):
    as_on_a_gpu(monkeypatch, [])
    model = load(models / "lenet5/1", max_batch=2)
    threads = model.session._threads
    del model
    for thread in threads:
        for _ in range(20):
            gc.collect()
            thread.join(0.5)
            if not thread.is_alive():
                break
        assert not thread.is_alive()


def as_on_a_gpu(monkeypatch, pinned) -> None:
    monkeypatch.setattr(model_module, "choose", lambda _: CUDA)
    monkeypatch.setattr(model_module, "pin", pinned.append)
    monkeypatch.setattr(on_gpu, "pin", lambda _: None)
    monkeypatch.setattr(on_gpu, "Lanes", partial(Lanes, make_stream=Host))
