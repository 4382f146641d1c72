"""What is chosen from what was measured, and that it is kept between starts."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from service.engine.device_errors import BrokenDeviceError
from service.engine.profile import Profile, best_batch, best_lanes, best_tuning, measure
from service.engine.profile_cache import key_of, measuring, recall, remember
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


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({1: 0.0078, 4: 0.0305}, 4),  # mobilenet_v2 on one thread: hardly cheaper, and three runs less
        ({1: 0.0647, 4: 0.2674}, 1),  # yolov4_tiny: dearer by more than a run costs besides
        ({1: 0.00002, 4: 0.00003}, 4),
        ({1: 0.5}, 1),
    ],
)
def test_the_cheapest_batch_where_throughput_is_preferred(seconds, batch):
    assert best_batch(seconds, "throughput") == batch


class Timed:
    """A session that takes given times, on a clock of its own, and runs out of memory from a size on."""

    def __init__(self, monkeypatch, cost, limit=1000):
        self.now, self.cost, self.limit, self.sizes = 0.0, cost, limit, []
        for module in ("profile", "widths"):
            monkeypatch.setattr(f"service.engine.{module}.perf_counter", lambda: self.now)

    def run(self, inputs):
        if inputs["size"] > self.limit:
            raise MemoryError
        self.sizes.append(inputs["size"])
        self.now += self.cost(inputs["size"])


def sample(size):
    return {"size": size}


def images(size):
    return {"images": np.zeros((size, 28, 28, 3), np.uint8)}


def test_measuring_warms_up_first(monkeypatch):
    session = Timed(monkeypatch, lambda size: 0.001 * size)
    assert measure(session.run, sample, (1, 4)) == pytest.approx({1: 0.001, 4: 0.004})
    assert session.sizes == [1, 1, 1, 4, 4, 4]


def test_measuring_stops_where_a_run_takes_long_or_memory_ends(monkeypatch):
    assert list(measure(Timed(monkeypatch, lambda size: 0.2 * size).run, sample, (1, 4, 8))) == [1]
    assert list(measure(Timed(monkeypatch, lambda _: 0.001, limit=4).run, sample, (1, 4, 8))) == [1, 4]
    with pytest.raises(MemoryError):
        measure(Timed(monkeypatch, lambda _: 0.001, limit=0).run, sample, (1, 4))


class TimedLanes:
    """Lanes whose runs take a given time. Three are as quick as two, and there is no memory for a fifth."""

    def __init__(self, monkeypatch, seconds=0.001, sizes=(1, 8)):
        self.now, self.seconds, self.sizes, self.count = 0.0, seconds, sizes, 0
        for module in ("profile", "widths"):
            monkeypatch.setattr(f"service.engine.{module}.perf_counter", lambda: self.now)

    def add(self):
        if self.seconds is None or self.count == 4:
            raise MemoryError
        self.count += 1

    def run(self, inputs):
        self.now += self.seconds

    def begin(self, inputs):
        self.now += self.seconds / min(self.count, 2)
        future = Future()
        future.set_result({})
        return future

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_steps_of_a_tuning_are_kept_where_they_pay(monkeypatch):
    def make(tuning, sizes):
        seconds = 0.004 - 0.001 * tuning.nhwc - 0.00001 * tuning.fuse_bias + 0.001 * tuning.tf32
        return TimedLanes(monkeypatch, None if tuning.cudnn_search == "EXHAUSTIVE" else seconds)

    steps = [{"cudnn_search": "EXHAUSTIVE"}, {"nhwc": True}, {"fuse_bias": True}, {"tf32": True}]
    assert best_tuning(make, images, Tuning(fp16=True), steps) == Tuning(nhwc=True, fp16=True)
    with pytest.raises(MemoryError):
        best_tuning(make, images, Tuning("EXHAUSTIVE"), steps)


def test_a_step_with_room_for_smaller_batches_only_is_not_kept(monkeypatch):
    def make(tuning, sizes):
        return TimedLanes(monkeypatch, 0.001, (1,)) if tuning.nhwc else TimedLanes(monkeypatch, 0.004)

    assert best_tuning(make, images, Tuning(), [{"nhwc": True}]) == Tuning()


def test_a_lost_gpu_ends_the_search_for_a_tuning(monkeypatch):
    def make(tuning, sizes):
        if tuning.nhwc:
            raise BrokenDeviceError("gone")
        return TimedLanes(monkeypatch)

    with pytest.raises(BrokenDeviceError):
        best_tuning(make, images, Tuning(), [{"nhwc": True}])


@pytest.mark.parametrize(("most", "best"), [(1, 1), (2, 2), (3, 2), (5, 2)])
def test_lanes_are_added_while_they_pay(monkeypatch, most, best):
    lanes = TimedLanes(monkeypatch)
    lanes.add()
    assert best_lanes(lanes, images(8), most) == best
    assert lanes.count <= best + 1


def test_a_real_model_is_measured(models):
    session = Session(models / "lenet5" / "1" / "model.onnx", "cpu")
    seconds = measure(session.run, images, (1, 4))
    assert 0 < seconds[1] < 1


def test_one_process_measures_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    inside, most = 0, 0

    def work(_):
        nonlocal inside, most
        with measuring():
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == 1


@pytest.mark.parametrize("before", [None, 0o644])
def test_other_users_cannot_open_the_lock_and_keep_it(monkeypatch, tmp_path, before):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = tmp_path / "zooserve" / "profiles" / "measuring.lock"
    if before is not None:
        lock.parent.mkdir(parents=True)
        lock.touch()
        lock.chmod(before)
    with measuring():
        assert lock.stat().st_mode & 0o777 == 0o600


def test_profiles_are_kept_and_damage_is_a_miss(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile({1: 0.001, 4: 0.002}, 4, 2, Tuning(), "measured")
    key = key_of("a" * 64, "CPUExecutionProvider", 2, 0)
    assert recall(key, Profile) is None
    remember(key, profile)
    assert recall(key, Profile) == profile
    assert recall(key_of("b" * 64, "CPUExecutionProvider", 2, 0), Profile) is None
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("{")
    assert recall(key, Profile) is None


def test_a_cache_that_cannot_be_written_costs_only_the_next_start(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember("key", Profile({1: 0.001}, 1, 1, Tuning(), "measured"))
    with measuring():
        pass
