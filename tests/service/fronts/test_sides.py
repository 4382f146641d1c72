"""What fronts and the engine do together: the same answers as one process, and nothing that one loses harms another."""

import asyncio
import gc
import shutil
import threading
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from service.engine.calls import Calls
from service.engine.job import Job, Priority
from service.errors import Reason, RequestError
from service.fronts.channel import Kind, connect
from service.fronts.messages import READY
from service.limits import PixelMemory
from service.models.entry import State
from service.models.inputs import TensorRows
from service.predictor import Predictor, deadline_after
from tests.service.fronts.side import FrontSide, sides, until


@pytest.fixture(scope="module")
def digits(models, tmp_path_factory):
    """A store with lenet5 alone."""
    store = tmp_path_factory.mktemp("digits")
    shutil.copytree(models / "lenet5", store / "lenet5")
    return store


@pytest.fixture(scope="module")
def digit(models):
    return (models / "lenet5/1/golden/digit_7.png").read_bytes()


@pytest.fixture(scope="module")
def two(digits):
    """An engine and two fronts, for tests that leave them as they were."""
    with sides(digits, 2) as both:
        yield both


def submit(front, data: bytes, milliseconds=20_000, priority=Priority.NORMAL, name="lenet5", **options) -> Job:
    """Submit an image; on an event loop."""
    model = front.registry.find(name)
    made = front.predictor.input(data, model, front.predictor.options(model, options))
    return front.predictor.submit(made, model, deadline_after(milliseconds), priority)


async def outcomes(jobs) -> list:
    return await asyncio.gather(*[job.future for job in jobs], return_exceptions=True)


def slow(engine, monkeypatch, seconds: float) -> list[int]:
    """Let each run of lenet5 take some time; return the sizes of its batches, as they come."""
    batcher, sizes = engine.models.repository.find("lenet5").batcher, []
    run = batcher._runs_on[1]

    def waits(inputs):
        sizes.append(len(inputs["images"]))
        sleep(seconds)
        return run(inputs)

    monkeypatch.setattr(batcher, "_runs_on", dict.fromkeys(batcher._runs_on, waits))
    return sizes


@pytest.mark.parametrize(
    ("name", "photo", "options"),
    [
        ("lenet5", "lenet5/1/golden/digit_7.png", {"top_k": "3"}),
        ("mobilenet_v2", "mobilenet_v2/1/golden/coffee.png", {"localize": "true"}),
        ("yolov4_tiny", "mobilenet_v2/1/golden/coffee.png", {"score_threshold": "0.3"}),
        ("yolov4_tiny", "mobilenet_v2/1/golden/coffee.png", {"tiles": "300x300"}),
        ("u2netp", "mobilenet_v2/1/golden/coffee.png", {"mask": "rle"}),
        ("deeplabv3_mobilenet_v2", "mobilenet_v2/1/golden/coffee.png", {}),
    ],
)
def test_answers_are_those_of_one_process(all_models, models, name, photo, options):
    engine, (front, other) = all_models
    data = (models / photo).read_bytes()
    here = Predictor(engine.models.repository, engine.settings, Calls(engine.workers, PixelMemory(10**9)))
    expected = here.predict(data, engine.models.repository.find(name), options)

    async def ask() -> list:
        return await outcomes([submit(side, data, name=name, **options) for side in (front, other, front)])

    assert asyncio.run(ask()) == [expected] * 3
    assert expected.predictions


@pytest.fixture(scope="module")
def all_models(models):
    with sides(models, 2, run_threads=1, max_batch=1) as both:
        yield both


@pytest.mark.parametrize("rows", [1, 3, 2000])
def test_tensors_go_through_memory_too(mixed_store, rows):
    with sides(mixed_store, 1, load="gru", max_batch=8) as (engine, (front,)):
        given = {"x": np.random.default_rng(rows).random((rows, 6, 8), np.float32)}
        expected = engine.models.repository.find("gru").run(given)

        async def ask() -> list:
            model = front.registry.find("gru")
            jobs = [front.predictor.submit(TensorRows(given, rows), model, deadline_after(20_000)) for _ in range(3)]
            return await outcomes(jobs)

        for found in asyncio.run(ask()):
            assert found.keys() == expected.keys()
            for output, value in expected.items():
                np.testing.assert_allclose(found[output], value, atol=1e-6)


def test_images_of_all_fronts_share_batches_and_more_than_there_are_rows_wait(two, digit, monkeypatch):
    engine, fronts = two
    sizes = slow(engine, monkeypatch, 0.02)

    async def ask() -> list:
        return await outcomes([submit(fronts[i % 2], digit) for i in range(60)])

    found = asyncio.run(ask())
    assert {result.predictions[0].label for result in found} == {"7"}
    assert sum(sizes) == 60
    assert max(sizes) == engine.models.repository.find("lenet5").batcher.max_batch
    assert all(front.registry.find("lenet5").batcher.pending == 0 for front in fronts)


def test_what_is_no_image_hurts_no_other(two, digit):
    _, fronts = two

    async def ask() -> list:
        return await outcomes([submit(fronts[0], digit[: 40 if i % 3 == 1 else None]) for i in range(30)])

    for i, found in enumerate(asyncio.run(ask())):
        assert getattr(found, "reason", None) == (Reason.UNDECODABLE if i % 3 == 1 else None)


def test_priorities_and_deadlines_hold_across_fronts(two, digit, monkeypatch):
    engine, (one, other) = two
    slow(engine, monkeypatch, 0.1)
    done = []

    def noted(job: Job, name: str) -> Job:
        job.future.add_done_callback(lambda _: done.append(name))
        return job

    async def ask() -> list:
        jobs = [noted(submit(one, digit), "running") for _ in range(1)]
        await asyncio.sleep(0.03)
        jobs += [noted(submit(one, digit, priority=Priority.LOW), "low") for _ in range(4)]
        jobs += [submit(one, digit, 60, Priority.LOW)]
        await asyncio.sleep(0.03)
        jobs += [noted(submit(other, digit, priority=Priority.HIGH), "high") for _ in range(4)]
        return await outcomes(jobs)

    found = asyncio.run(ask())
    assert done == ["running"] + ["high"] * 4 + ["low"] * 4
    assert found[5].reason is Reason.DEADLINE


def test_admission_sees_what_other_fronts_wait_for(two, digit, monkeypatch):
    engine, (one, other) = two
    slow(engine, monkeypatch, 0.05)

    async def ask() -> None:
        jobs = [submit(one, digit) for _ in range(40)]
        until(lambda: other.registry.find("lenet5").batcher.wait() > 0)
        with pytest.raises(RequestError, match="all work ahead") as refused:
            submit(other, digit, 1)
        assert refused.value.reason is Reason.QUEUE_FULL
        assert refused.value.retry_after >= 1
        await outcomes(jobs)

    asyncio.run(ask())


def test_the_queue_is_one_for_all_fronts(digits, digit, monkeypatch):
    with sides(digits, 2, max_queue=5) as (engine, (one, other)):
        slow(engine, monkeypatch, 0.05)

        async def ask() -> None:
            jobs = [submit(one, digit) for _ in range(4)]
            with pytest.raises(RequestError, match=r"4 requests wait for this model \(of at most 5\)"):
                front_check(other, 2)
            await outcomes([*jobs, submit(other, digit)])

        asyncio.run(ask())


def front_check(front: FrontSide, rows: int) -> None:
    front.registry.find("lenet5").batcher.check(deadline_after(20_000), rows)


def test_what_nobody_waits_for_is_not_run(two, digit, monkeypatch):
    engine, (one, _) = two
    sizes = slow(engine, monkeypatch, 0.1)

    async def ask() -> list:
        jobs = [submit(one, digit)]
        await asyncio.sleep(0.03)
        jobs += [submit(one, digit) for _ in range(3)]
        await asyncio.sleep(0.03)
        for job in jobs[1:]:
            job.abandon()
        jobs.append(submit(one, digit))
        return await outcomes(jobs)

    found = asyncio.run(ask())
    assert sum(sizes) == 2
    assert [isinstance(each, RequestError) for each in found] == [False, True, True, True, False]


def test_all_fronts_have_followed_when_an_administrator_is_answered(two, digit):
    _, (one, other) = two
    for _ in range(5):
        one.registry.unload("lenet5")
        assert other.registry.entries["lenet5"].state is State.UNLOADED
        with pytest.raises(RequestError, match="it was unloaded"):
            other.registry.find("lenet5")
        asyncio.run(other.loads.load("lenet5", perf_counter() + 20))
        assert one.registry.entries["lenet5"].state is State.READY
    with pytest.raises(RequestError) as refused:
        one.registry.unload("none")
    assert refused.value.reason is Reason.UNKNOWN_MODEL
    assert one.registry.reload() is False


def test_a_new_version_answers_and_requests_of_the_old_one_end_with_it(models, digit, tmp_path, monkeypatch):
    shutil.copytree(models / "lenet5", tmp_path / "lenet5")
    with sides(tmp_path, 1) as (engine, (front,)):
        slow(engine, monkeypatch, 0.2)

        async def ask() -> list:
            old = front.registry.find("lenet5")
            old.usage.begin()
            jobs = [submit(front, digit)]
            shutil.copytree(tmp_path / "lenet5/1", tmp_path / "lenet5/2")
            card = tmp_path / "lenet5/2/card.json"
            card.write_text(card.read_text().replace('"version": "1"', '"version": "2"'))
            assert await asyncio.to_thread(front.registry.reload)
            jobs.append(submit(front, digit))
            made = front.predictor.input(digit, old, front.predictor.options(old, {}))
            await asyncio.sleep(2.5)  # longer than one that nobody holds stays
            jobs.append(front.predictor.submit(made, old, deadline_after(20_000)))
            found = await outcomes(jobs)
            old.usage.end()
            return found

        assert [result.version for result in asyncio.run(ask())] == ["1", "2", "1"]
        until(lambda: len(engine.engine._table.served) == 1)


def test_an_engine_that_ends_fails_what_it_had_and_the_next_one_answers(digits, digit, monkeypatch):
    with sides(digits, 2) as (engine, fronts):
        slow(engine, monkeypatch, 0.3)

        async def ask() -> list:
            jobs = [submit(fronts[i % 2], digit) for i in range(40)]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(engine.end)
            found = await outcomes(jobs)
            with pytest.raises(RequestError) as refused:
                submit(fronts[0], digit)
            assert (refused.value.reason, refused.value.retry_after) == (Reason.NOT_READY, 2)
            assert not fronts[0].registry.ready
            return found

        for found in asyncio.run(ask()):
            if isinstance(found, RequestError):
                assert (found.reason, found.retry_after) == (Reason.NOT_READY, 1)
            else:
                assert found.predictions[0].label == "7"
        engine.start()
        until(lambda: all(front.registry.ready for front in fronts))
        assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20
        assert all(front.registry.find("lenet5").batcher.pending == 0 for front in fronts)


async def outcomes_of(fronts, digit) -> list[str]:
    return [each.predictions[0].label for each in await outcomes([submit(fronts[i % 2], digit) for i in range(20)])]


def test_a_front_that_ends_leaves_its_place_once_its_rows_are_free(digits, digit, monkeypatch):
    with sides(digits, 2) as (engine, (one, other)):
        sizes = slow(engine, monkeypatch, 0.3)

        async def ask() -> list:
            lost = [submit(one, digit) for _ in range(8)]
            await asyncio.sleep(0.1)
            one.close()
            kept = submit(other, digit)
            third = await asyncio.to_thread(FrontSide, engine.settings, engine.address)
            running = engine.call(lambda: sum(front.gone for front in engine.engine._seated))
            found = await outcomes([kept, submit(third, digit)])
            await outcomes(lost)
            third.close()
            return [running, *found]

        running, *found = asyncio.run(ask())
        assert running == 0, "the place was given on while a run used its rows"
        assert [result.predictions[0].label for result in found] == ["7", "7"]
        assert sum(sizes) <= 8, "what nobody waits for was run"


@pytest.mark.parametrize("sent", ["garbage", "a flood"])
def test_a_front_that_talks_nonsense_or_does_not_listen_harms_no_other(two, digit, sent):
    engine, fronts = two
    fronts[1].registry._link.connection.channel.end()  # its place is free for a moment
    channel = connect(engine.address)
    try:
        for _ in range(100_000):
            channel.send(b"\xff\x00" if sent == "garbage" else READY.pack(Kind.READY, 1, 999, 0, 0.0))
    except OSError:
        pass
    else:
        pytest.fail("it was not disconnected")
    channel.close()
    until(lambda: fronts[1].registry.ready)
    assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20


def test_models_are_loaded_on_demand_and_stay_while_a_front_holds_them(models, digit):
    with sides(models, 2, model_idle_s=0.6, load="lenet5,efficientnet_lite0,mobilenet_v2") as (engine, (one, other)):
        assert one.registry.entries["efficientnet_lite0"].state is State.ON_DEMAND
        entry = one.registry.entries["efficientnet_lite0"]

        async def ask() -> None:
            with pytest.raises(RequestError) as refused:
                await one.loads.wait(entry, perf_counter() + 0.001)
            assert refused.value.reason is Reason.NOT_READY
            await one.loads.wait(entry, perf_counter() + 60)
            model = one.registry.find("efficientnet_lite0")
            model.usage.begin()
            await asyncio.sleep(3)
            assert engine.models.repository.entries["efficientnet_lite0"].model is not None, "it is held"
            model.usage.end()

        asyncio.run(ask())
        until(lambda: other.registry.entries["efficientnet_lite0"].state is State.ON_DEMAND, 20)
        until(lambda: not any(m.card.name == "efficientnet_lite0" for m in engine.engine._table.served.values()))


def test_no_file_and_no_thread_is_left(digits, digit):
    def count() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def once() -> None:
        with sides(digits, 2) as (_, fronts):
            asyncio.run(outcomes_of(fronts, digit))

    once()
    until(lambda: threading.active_count() < 100)
    sleep(0.5)
    before = count()
    for _ in range(5):
        once()
    until(lambda: count()[1] <= before[1] + 2, 10)
    assert count()[0] <= before[0] + 6


def test_a_run_that_takes_too_long_is_answered_and_its_row_stays_until_it_ends(digits, digit, monkeypatch):
    with sides(digits, 1, work_s=0.2) as (engine, (front,)):
        batcher = engine.models.repository.find("lenet5").batcher
        real, end = batcher._runs_on[1], threading.Event()

        def hangs(inputs):
            end.wait(20)
            return real(inputs)

        monkeypatch.setattr(batcher, "_runs_on", dict.fromkeys(batcher._runs_on, hangs))

        async def ask() -> None:
            queue = front.registry.find("lenet5").batcher
            rows = len(queue._free)
            late = submit(front, digit)
            with pytest.raises(RequestError, match="ZOOSERVE_WORK_S"):
                await late.future
            assert (queue.pending, len(queue._free)) == (1, rows - 1), "the run may still use the row"
            monkeypatch.setattr(batcher, "_runs_on", dict.fromkeys(batcher._runs_on, real))
            assert (await submit(front, digit).future).predictions[0].label == "7"
            end.set()
            while queue.pending:
                await asyncio.sleep(0.01)
            assert len(queue._free) == rows

        asyncio.run(ask())
