"""What is chosen from what was measured, and that it is kept between starts."""

import numpy as np
import pytest

from service.engine.profile import Profile, best_batch, best_runs, best_tuning, measure
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import Tuning
from service.engine.session import Session


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({1: 0.0036, 4: 0.0152, 8: 0.0336}, 1),  # mobilenet_v2 on one thread: batches only add latency
        ({1: 0.0020, 2: 0.0021, 4: 0.0024, 8: 0.0040, 16: 0.0080}, 8),  # a GPU that is full from 8 on
        ({1: 0.0010, 4: 0.0039}, 1),  # not worth it
        ({1: 0.5}, 1),
    ],
)
def test_the_smallest_batch_that_is_worth_it(seconds, batch):
    assert best_batch(seconds) == batch


class Timed:
    """A session that takes given times, on a clock of its own, and runs out of memory from a size on."""

    def __init__(self, monkeypatch, cost, limit=1000):
        self.now, self.cost, self.limit, self.sizes = 0.0, cost, limit, []
        monkeypatch.setattr("service.engine.profile.perf_counter", lambda: self.now)

    def run(self, inputs):
        if inputs["size"] > self.limit:
            raise MemoryError
        self.sizes.append(inputs["size"])
        self.now += self.cost(inputs["size"])

    def shrink(self, inputs):
        self.sizes.append("shrink")

    def bind(self, sizes, runs, on_unwarmed):
        pass


def sample(size):
    return {"size": size}


def images(size):
    return {"images": np.zeros((size, 28, 28, 3), np.uint8)}


def test_measuring_warms_up_first_and_shrinks_last(monkeypatch):
    session = Timed(monkeypatch, lambda size: 0.001 * size)
    assert measure(session, sample, (1, 4)) == pytest.approx({1: 0.001, 4: 0.004})
    assert session.sizes == [1, 1, 1, 4, 4, 4, "shrink"]


def test_measuring_stops_where_a_run_takes_long_or_memory_ends(monkeypatch):
    assert list(measure(Timed(monkeypatch, lambda size: 0.2 * size), sample, (1, 4, 8))) == [1]
    assert list(measure(Timed(monkeypatch, lambda _: 0.001, limit=4), sample, (1, 4, 8))) == [1, 4]
    with pytest.raises(MemoryError):
        measure(Timed(monkeypatch, lambda _: 0.001, limit=0), sample, (1, 4))


def test_the_quickest_tuning_that_works_is_taken(monkeypatch):
    slow, quick, broken = Tuning("HEURISTIC"), Tuning("EXHAUSTIVE"), Tuning("EXHAUSTIVE", cuda_graphs=True)

    def load(tuning):
        if tuning == broken:
            raise RuntimeError("this graph cannot be captured")
        return Timed(monkeypatch, lambda _: 0.002 if tuning == slow else 0.001)

    assert best_tuning(load, sample, (slow, quick, broken)) == quick
    with pytest.raises(RuntimeError, match="captured"):
        best_tuning(load, sample, (broken,))


def test_a_real_model_is_measured(models):
    session = Session(models / "lenet5" / "1" / "model.onnx", "cpu")
    seconds = measure(session, images, (1, 4))
    assert 0 < seconds[1] < 1
    assert best_runs(session, images(1), (1, 2), repeats=2) in (1, 2)


def test_profiles_are_kept_and_damage_is_a_miss(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile({1: 0.001, 4: 0.002}, 4, 2, Tuning(), "measured")
    key = key_of("a" * 64, "CPUExecutionProvider", 2, 0)
    assert recall(key) is None
    remember(key, profile)
    assert recall(key) == profile
    assert recall(key_of("b" * 64, "CPUExecutionProvider", 2, 0)) is None
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("{")
    assert recall(key) is None


def test_a_cache_that_cannot_be_written_costs_only_the_next_start(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember("key", Profile({1: 0.001}, 1, 1, Tuning(), "measured"))
