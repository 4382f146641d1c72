"""What one side loses harms no other: fronts and engines that end, hang or talk nonsense, and models that go."""

import asyncio
import gc
import shutil
import threading
from pathlib import Path
from time import perf_counter, sleep

import pytest

from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.fronts.channel import Kind, connect
from service.fronts.messages import READY
from service.models.entry import State
from service.models.inputs import EncodedImage
from service.predictor import deadline_after
from service.runtime import shared_unloaded
from service.supervisor import SHARED
from tests.service.fronts.side import FrontSide, outcomes, outcomes_of, sides, slow, submit, until


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
            await asyncio.sleep(2.5)
            old.usage.end()
            return found

        assert [result.version for result in asyncio.run(ask())] == ["1", "2", "1"]
        until(lambda: len(engine.engine._table.served) == 1)
        until(lambda: [len(told._models) for told in front.registry._engines] == [1])


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
        silent = fronts[0].registry.silent()
        sleep(0.3)
        assert fronts[0].registry.silent() > silent + 0.2, "no engine is as bad as one that hangs"
        engine.start()
        until(lambda: all(front.registry.ready for front in fronts))
        assert fronts[0].registry.silent() < 0.3
        assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20
        assert all(front.registry.find("lenet5").batcher.pending == 0 for front in fronts)


def test_a_bad_model_that_was_added_is_not_waited_for_by_the_next_engine(models, tmp_path, monkeypatch):
    monkeypatch.setenv(SHARED, str(tmp_path / "shared"))
    shutil.copytree(models / "lenet5", tmp_path / "models" / "lenet5")
    with sides(tmp_path / "models") as (engine, (front,)):
        (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
        (tmp_path / "models" / "bad" / "1" / "card.json").write_text("{}")
        front.registry.reload()
        front.wait("bad", state=State.FAILED)
        assert front.registry.ready
        engine.end()
        until(lambda: not front.registry.ready)
        assert front.registry.served == ["lenet5"]
        shared_unloaded().note_served(front.registry.served)
        engine.start()
        until(lambda: front.registry.ready)


def test_a_front_that_ends_leaves_its_place_once_its_rows_are_free(digits, digit, monkeypatch):
    with sides(digits, 2) as (engine, (one, other)):
        sizes = slow(engine, monkeypatch, 0.3)

        async def ask() -> list:
            lost = [submit(one, digit) for _ in range(8)]
            await asyncio.sleep(0.1)
            one.registry.close()
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


@pytest.mark.parametrize("sent", ["garbage", "a flood", "the rows of another"])
def test_a_front_that_talks_nonsense_or_does_not_listen_harms_no_other(two, digit, sent):
    engine, fronts = two
    link = fronts[1].registry.links[0]
    before = link.connection
    before.channel.end()  # its place is free for a moment
    channel = connect(engine.address)
    model = fronts[0].registry.find("lenet5").number
    messages = {"garbage": b"\xff\x00", "a flood": READY.pack(Kind.READY, 1, 999, 0, 0.0)}
    messages["the rows of another"] = READY.pack(Kind.READY, 1, model, 10_000, 0.0)
    try:
        for _ in range(100_000):
            channel.send(messages[sent])
    except OSError:
        pass
    else:
        pytest.fail("it was not disconnected")
    channel.close()
    until(lambda: link.connection is not before and fronts[1].registry.ready)
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

    threads = threading.active_count()  # of other tests, too
    once()
    until(lambda: threading.active_count() <= threads + 2)
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


def test_an_image_that_is_ready_just_after_its_time_is_refused(digits, digit, monkeypatch):
    with sides(digits, 1) as (_, (front,)):
        workers, late = Workers(1, 0.2), threading.Event()
        monkeypatch.setattr(front.registry.find("lenet5").batcher, "_workers", workers)
        start, write = workers._start, EncodedImage.write

        def starts(name, step):  # the thread in its place begins a moment later
            late.set()
            sleep(0.05)
            start(name, step)

        def writes(image, row, **jpegs):
            late.wait(10)
            return write(image, row, **jpegs)

        monkeypatch.setattr(workers, "_start", starts)
        monkeypatch.setattr(EncodedImage, "write", writes)

        async def ask() -> None:
            with pytest.raises(RequestError, match="ZOOSERVE_WORK_S"):
                await submit(front, digit).future

        asyncio.run(ask())
        workers.close()


def test_the_rows_of_a_front_are_given_to_no_other_while_it_writes_one(digits, digit, monkeypatch):
    """The engine parts from it, say because it has read nothing for long; another front waits for a place meanwhile."""
    with sides(digits, 1) as (engine, (one,)):
        writes, may_go_on = threading.Event(), threading.Event()
        write = EncodedImage.write

        def slowly(self, out, **options):
            writes.set()
            may_go_on.wait(20)
            return write(self, out, **options)

        async def ask() -> None:
            monkeypatch.setattr(EncodedImage, "write", slowly)
            job = submit(one, digit)
            await asyncio.to_thread(writes.wait)
            monkeypatch.setattr(EncodedImage, "write", write)
            (front,) = engine.call(lambda: list(engine.engine._seated))
            engine.call(front.part)
            coming = asyncio.create_task(asyncio.to_thread(FrontSide, engine.settings, engine.address))
            await asyncio.sleep(0.5)
            waits = not coming.done()
            may_go_on.set()
            other = await coming
            (found,) = await outcomes([job])
            other.close()
            assert waits, "it was given the rows that are written"
            assert found.reason is Reason.NOT_READY
            await asyncio.to_thread(until, lambda: one.registry.ready)

        asyncio.run(ask())
        assert asyncio.run(outcomes_of([one, one], digit)) == ["7"] * 20


def test_what_ends_late_does_not_touch_the_counts_of_who_has_the_place_now(two, digit):
    _, (one, _) = two
    link = one.registry.links[0]
    before, model = link.connection, one.registry.find("lenet5")
    memory, place = model.batcher._memory, before.place
    model.usage.begin()
    assert memory.holds[place] == 1
    link._loop.call_soon_threadsafe(link._disconnect, before)
    until(lambda: before.ended)
    memory.holds[place] = memory.pending[place] = 5  # of another one
    model.usage.end()
    model.batcher.settle([])
    assert (memory.holds[place], memory.pending[place]) == (5, 5)
    memory.holds[place] = memory.pending[place] = 0
    until(lambda: link.connection is not None and link.connection is not before and one.registry.ready)
