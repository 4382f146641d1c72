"""What is chosen from what was measured, and that it is kept between starts."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.engine.profile import Profile, add_lanes, best_batch, best_sizes, best_tuning, measure
from service.engine.profile_cache import key_of, recall_or
from service.engine.providers import Tuning
from service.engine.session import Session
from tests.service.engine.cuda_stub.inside import lanes


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

    count = 1

    def close(self, count):
        self.sizes.append("closed")


def sample(size):
    return {"size": size}


def images(size):
    return {"images": np.zeros((size, 28, 28, 3), np.uint8)}


def test_measuring_warms_up_first(monkeypatch):
    session = Timed(monkeypatch, lambda size: 0.001 * size)
    assert measure(session, sample, (1, 4)) == pytest.approx({1: 0.001, 4: 0.004})
    assert session.sizes == [1, 1, 1, 4, 4, 4]


def test_measuring_stops_where_a_run_takes_long_or_memory_ends(monkeypatch):
    assert list(measure(Timed(monkeypatch, lambda size: 0.2 * size), sample, (1, 4, 8))) == [1]
    assert list(measure(Timed(monkeypatch, lambda _: 0.001, limit=4), sample, (1, 4, 8))) == [1, 4]
    with pytest.raises(MemoryError):
        measure(Timed(monkeypatch, lambda _: 0.001, limit=0), sample, (1, 4))


def test_each_option_that_makes_runs_quicker_is_kept_and_what_does_not_work_is_left_out(monkeypatch):
    made = []

    def load(tuning):
        if tuning.cuda_graphs:
            raise RuntimeError("this graph cannot be captured")
        seconds = 0.004 * (0.5 if tuning.cudnn_search == "EXHAUSTIVE" else 1) * (0.99 if tuning.nhwc else 1)
        made.append(Timed(monkeypatch, lambda _: seconds * (0.5 if tuning.fuse_bias else 1)))
        return made[-1]

    assert best_tuning(load, sample) == Tuning("EXHAUSTIVE", fuse_bias=True)
    assert all(lanes.sizes[-1] == "closed" for lanes in made)


def test_options_that_all_graphs_should_work_with_fail_with_their_reason(monkeypatch):
    def load(tuning):
        raise RuntimeError("no kernel for this node")

    with pytest.raises(RuntimeError, match="no kernel"):
        best_tuning(load, sample)


@pytest.mark.parametrize(
    ("seconds", "largest", "sizes"),
    [
        ({1: 1.0, 2: 1.05, 4: 1.1, 8: 1.5, 16: 2.5, 32: 4.6}, 32, (1, 4, 8, 16, 32)),
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, 8, (1, 8)),
        ({1: 1.0, 2: 1.9, 4: 3.8, 8: 7.5}, 2, (1, 2)),
        ({1: 1.0}, 1, (1,)),
    ],
)
def test_a_size_that_saves_no_time_gets_no_session(seconds, largest, sizes):
    assert best_sizes(seconds, largest) == sizes


def test_a_lane_is_added_where_it_pays(lenet):
    made = lanes(lenet, (1,), device="cpu")
    add_lanes(made, images(1), 3, repeats=2)
    assert made.count in (1, 2, 3)
    assert made.run(images(3))["probabilities"].shape == (3, 10)


def test_a_real_model_is_measured(models):
    session = Session(models / "lenet5" / "1" / "model.onnx", "cpu")
    seconds = measure(session, images, (1, 4))
    assert 0 < seconds[1] < 1


@pytest.mark.parametrize("one_by_one", [False, True])
def test_profiles_are_kept_and_damage_is_a_miss(monkeypatch, tmp_path, one_by_one):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile({1: 0.001, 4: 0.002}, 4, 2, Tuning(), "measured")
    key, other = (key_of(letter * 64, "CPUExecutionProvider", 2, 0) for letter in "ab")
    asked = []

    def measured():
        asked.append(key)
        return profile

    for name, count in ((key, 1), (key, 1), (other, 2)):
        assert recall_or(measured, name, one_by_one=one_by_one) == profile
        assert len(asked) == count
    for kept in tmp_path.rglob("*.json"):
        kept.write_text("{")
    assert recall_or(measured, key, one_by_one=one_by_one) == profile
    assert len(asked) == 3


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_cache_that_cannot_be_written_costs_only_the_next_start(monkeypatch, tmp_path, one_by_one):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    profile = Profile({1: 0.001}, 1, 1, Tuning(), "measured")
    assert recall_or(lambda: profile, "key", one_by_one=one_by_one) == profile


def test_processes_measure_one_after_the_other(monkeypatch, tmp_path):
    """Threads stand for them: each has a lock of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile, measuring, most = Profile({1: 0.001}, 1, 1, Tuning(), "measured"), [], []

    def measured():
        measuring.append(1)
        most.append(len(measuring))
        time.sleep(0.05)
        measuring.pop()
        return profile

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: recall_or(measured, key, one_by_one=True), "abca"))
    assert most == [1, 1, 1]
