"""Models that are loaded when they are asked for: one load for all who wait, room made by idle ones, nothing lost."""

import asyncio
import gc
import shutil
import weakref
from time import perf_counter

import msgspec
import pytest

from service.errors import Reason, RequestError
from service.models.budget import taken
from service.models.entry import State
from service.models.footprint import Footprint
from service.models.model import LoadedModel
from tests.service.models.conftest import MB, TAKES, add, ask, states
from zoo.pipeline_card import Detect, PipelineCard, Second
from zoo.served_card import read_served_card, write_served_card


def test_a_model_is_loaded_when_it_is_asked_for_and_an_idle_one_makes_room(start):
    runtime = start()
    assert set(states(runtime).values()) == {State.ON_DEMAND}
    assert runtime.repository.ready, "nothing is pinned"

    async def use():
        gone = weakref.ref(await ask(runtime, "a"))
        await ask(runtime, "b")
        assert states(runtime) == {"a": State.READY, "b": State.READY, "c": State.ON_DEMAND}
        await ask(runtime, "c")
        gc.collect()
        assert gone() is None
        assert states(runtime) == {"a": State.ON_DEMAND, "b": State.READY, "c": State.READY}
        await ask(runtime, "a")

    asyncio.run(use())
    assert states(runtime) == {"a": State.READY, "b": State.ON_DEMAND, "c": State.READY}


def test_all_who_wait_share_one_load(start):
    runtime = start()

    async def use():
        return await asyncio.gather(*(ask(runtime, "a") for _ in range(20)))

    assert len({id(model) for model in asyncio.run(use())}) == 1
    assert runtime.repository._loader.changes == 1


def test_pinned_models_stay(start):
    runtime = start(pin="b")
    assert states(runtime) == {"a": State.ON_DEMAND, "b": State.READY, "c": State.ON_DEMAND}

    async def use():
        for name in "acacac":
            await ask(runtime, name)

    asyncio.run(use())
    assert states(runtime)["b"] is State.READY


@pytest.fixture
def detector(store, models):
    """A detector in the store; it is not its task's default."""
    shutil.copytree(models / "yolov4_tiny" / "1", folder := store / "detector" / "1")
    card = read_served_card(folder / "card.json")
    write_served_card(msgspec.structs.replace(card, name="detector", task_default=False), folder / "card.json")


@pytest.mark.usefixtures("detector")
def test_a_pipeline_one_of_whose_models_never_fits_is_not_ready_once_that_is_known(start):
    runtime = start(pin="a", memory_mb=150)
    pipeline = PipelineCard("p", "Digits", Detect("detector"), Second("classify", "a"))
    assert runtime.pipelines.problem(pipeline) == ""
    runtime.repository.room.weigh(runtime.repository.entries["detector"])
    assert "`detector` cannot be loaded: it takes 100 MB" in runtime.pipelines.problem(pipeline)


@pytest.mark.usefixtures("detector")
def test_a_pipeline_that_lacks_a_model_does_not_have_its_other_one_loaded(start):
    pipelines = start().pipelines
    for second, problem in (("a", ""), ("nothing", "There is no model `nothing`")):
        pipeline = PipelineCard("p", "Digits", Detect("detector"), Second("classify", second))
        assert problem in pipelines.problem(pipeline)
        if problem:
            with pytest.raises(RequestError, match=problem):
                pipelines.finds(pipeline)


def test_a_pin_of_no_model_is_named_in_the_log(start, caplog):
    start(pin="b, bb")
    assert "ZOOSERVE_PIN names bb, and there is no such model" in caplog.messages


@pytest.mark.parametrize("held", ["request", "job"])
def test_a_model_in_use_is_not_unloaded(start, held):
    runtime = start(memory_mb=150)

    async def use():
        model = await ask(runtime, "a")
        if held == "request":
            model.usage.begin()
        else:
            model.batcher.pending += 1
        waiting = asyncio.ensure_future(ask(runtime, "b"))
        await asyncio.sleep(0.2)
        assert states(runtime)["a"] is State.READY
        assert not waiting.done()
        model.usage.holds = model.batcher.pending = 0
        del model
        await waiting

    asyncio.run(use())
    assert states(runtime) == {"a": State.ON_DEMAND, "b": State.READY, "c": State.ON_DEMAND}


def test_who_waits_for_room_does_not_delay_what_has_room_and_is_told_so(start, monkeypatch):
    takes = {"a": 100, "b": 200, "c": 20}

    def measure(_, card, __):
        return Footprint(takes[card.name] * MB, peak=takes[card.name] * MB, seconds=0.01)

    monkeypatch.setattr("service.models.footprint.Footprints.measure", measure)
    runtime = start()

    async def use() -> float:
        runtime.on_demand.start()
        (await ask(runtime, "a")).usage.begin()
        large = asyncio.create_task(ask(runtime, "b", 2))
        await asyncio.sleep(0.2)
        begun = perf_counter()
        assert await ask(runtime, "c", 1.5) is not None
        took = perf_counter() - begun
        with pytest.raises(RequestError, match="all models that would make room for it are in use"):
            await large
        return took

    assert asyncio.run(use()) < 1


def test_a_model_whose_card_can_be_read_again_is_loaded_on_demand(start, store):
    card = store / "a" / "1" / "card.json"
    whole = card.read_text()
    card.write_text(whole[:100])
    runtime = start()
    assert runtime.repository.entries["a"].state is State.FAILED
    card.write_text(whole)
    runtime.repository.reload()
    entry = runtime.repository.entries["a"]
    assert (entry.state, entry.pinned) == (State.ON_DEMAND, False)
    assert runtime.repository.ready


def refusal(work) -> RequestError:
    with pytest.raises(RequestError) as error:
        asyncio.run(work)
    return error.value


def test_who_waits_for_a_model_that_fails_is_told_why_and_others_are_served(start, store, models):
    add(store, models, "wrong", broken=True)
    runtime = start()

    async def use():
        return await asyncio.gather(
            *(ask(runtime, "wrong") for _ in range(10)), ask(runtime, "a"), return_exceptions=True
        )

    *failed, served = asyncio.run(use())
    assert {(error.reason, "golden photo" in error.detail) for error in failed} == {(Reason.NOT_READY, True)}
    assert served.card.name == "a"
    assert states(runtime)["wrong"] is State.FAILED
    assert runtime.repository.ready, "readiness is about models that stay loaded"


@pytest.fixture
def loads(monkeypatch):
    """The versions that are loaded, in order; each load finds the memory of those that failed before it freed."""
    seen: list[str] = []
    failed: list[weakref.ref[LoadedModel]] = []

    class Noted(LoadedModel):
        def __init__(self, folder, *args):
            assert [one for one in failed if one() is not None] == []
            seen.append(folder.name)
            super().__init__(folder, *args)
            if folder.name != "1":
                failed.append(weakref.ref(self))

    monkeypatch.setattr("service.runtime.LoadedModel", Noted)
    gc.disable()
    yield seen
    gc.enable()


def test_a_version_that_failed_is_not_loaded_again_and_the_one_before_it_is_booked(
    start, store, models, loads, monkeypatch
):
    for version in ("2", "3"):
        add(store, models, "a", version=version, broken=True)
    card = read_served_card(store / "a" / "1" / "card.json")
    write_served_card(msgspec.structs.replace(card, precision="fp16"), store / "a" / "1" / "card.json")
    sizes = {"fp16": Footprint(200 * MB, peak=200 * MB, seconds=0.01)}
    monkeypatch.setattr(
        "service.models.footprint.Footprints.measure", lambda _, card, __: sizes.get(card.precision, TAKES)
    )
    runtime = start()
    entry = runtime.repository.entries["a"]

    async def use():
        for _ in range(2):
            assert (await ask(runtime, "a")).card.version == "1"
            assert taken([entry]) == (200 * MB, 0)
            assert entry.refused.startswith("version 3 in the store is refused: on its golden photo")
            await ask(runtime, "b")
            assert entry.state is State.ON_DEMAND

    asyncio.run(use())
    assert loads == ["3", "2", "1", "1", "1", "1"], "a, b, a and b"
    assert runtime.metrics.refused.labels("a")._value.get() == 1


def test_an_administrator_has_a_version_that_failed_loaded_again(start, store, models, loads):
    add(store, models, "a", version="2", broken=True)
    runtime = start(memory_mb=150)
    entry = runtime.repository.entries["a"]

    async def use():
        await ask(runtime, "a")
        await ask(runtime, "b")
        with pytest.raises(RequestError, match="version 2 in the store is refused") as error:
            await runtime.on_demand.load("a", perf_counter() + 20)
        assert (error.value.reason, entry.model.card.version) == (Reason.REFUSED, "1")
        await ask(runtime, "b")
        shutil.rmtree(store / "a" / "2")
        add(store, models, "a", version="2")
        await runtime.on_demand.load("a", perf_counter() + 20)
        assert (entry.refused, entry.model.card.version) == ("", "2")

    asyncio.run(use())


def test_the_newest_card_that_can_be_read_says_whether_a_model_is_pinned(start, store, models):
    add(store, models, "a", version="2")
    (store / "a" / "2" / "card.json").write_text("{")
    runtime = start()
    entry = runtime.repository.entries["a"]
    assert (entry.state, entry.pinned, entry.card.version) == (State.ON_DEMAND, False, "1")
    assert asyncio.run(ask(runtime, "a")).card.version == "1"
    assert "card.json" in entry.refused
    assert taken([entry]) == (100 * MB, 0)


def test_what_can_never_fit_is_refused_at_once_with_both_numbers(start):
    runtime = start(memory_mb=90)
    error = refusal(ask(runtime, "a"))
    assert error.reason is Reason.NOT_READY
    assert "takes 100 MB" in error.detail
    assert "of the 90 MB" in error.detail
    pinned = start(memory_mb=90, pin="a")
    assert "takes 100 MB" in pinned.repository.entries["a"].reason
    assert not pinned.repository.ready


def test_what_can_never_fit_beside_the_requests_other_model_is_refused_at_once(start):
    runtime = start(memory_mb=150)

    async def use():
        for name in "ba":  # what both take is known afterwards
            (await ask(runtime, name)).usage.begin()
            runtime.repository.entries[name].model.usage.end()
        await runtime.on_demand.wait(runtime.repository.entries["b"], perf_counter() + 20, ["a"])

    before = perf_counter()
    error = refusal(use())
    assert perf_counter() - before < 10
    assert "50 MB are left beside those that have to stay" in error.detail
    assert states(runtime)["a"] is State.READY, "nothing made room in vain"


def test_who_cannot_wait_is_told_when_to_come_again(start, monkeypatch):
    runtime = start()
    entry = runtime.repository.entries["a"]
    entry.footprint = Footprint(100 * MB, seconds=4.2)
    before = perf_counter()
    error = refusal(ask(runtime, "a", seconds=3.0))
    assert perf_counter() - before < 1
    assert (error.reason, error.retry_after) == (Reason.NOT_READY, 5)


def test_a_client_that_cannot_wait_finds_the_model_loaded_the_next_time_though_another_has_to_go(start):
    runtime = start(memory_mb=150)

    async def use():
        await ask(runtime, "a")
        entry = runtime.repository.entries["b"]
        entry.footprint = Footprint(100 * MB, peak=100 * MB, seconds=4.2)
        with pytest.raises(RequestError, match=r"4\.2 s"):
            await runtime.on_demand.wait(entry, perf_counter() + 1)
        while entry.model is None:
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(use(), 20))
    assert states(runtime)["a"] is State.ON_DEMAND


@pytest.mark.parametrize(("memory", "used", "said"), [(250, False, ""), (250, True, "in use"), (150, False, "50 MB")])
def test_a_new_version_needs_room_beside_the_old_one(start, store, models, memory, used, said):
    runtime = start(memory_mb=memory)
    entries = runtime.repository.entries

    async def use():
        runtime.on_demand.start()
        for name in "ba" if memory == 250 else "a":
            await ask(runtime, name)
        if used:
            entries["b"].model.usage.begin()
        add(store, models, "a", version="2")
        await asyncio.to_thread(runtime.repository.reload, "a")

    if not said:
        asyncio.run(use())
        assert (entries["a"].model.card.version, states(runtime)["b"]) == ("2", State.ON_DEMAND)
        assert entries["a"].reserved == Footprint()
        return
    error = refusal(use())
    assert error.reason is Reason.REFUSED
    assert said in error.detail
    assert (entries["a"].model.card.version, entries["a"].state) == ("1", State.READY)


@pytest.mark.parametrize(("held", "goes"), [(False, True), (True, False)])
def test_memory_beyond_what_is_booked_makes_idle_models_go(start, monkeypatch, held, goes):
    runtime = start(memory_mb=350)
    on_demand = runtime.on_demand
    now = lambda: on_demand._beside + taken(runtime.repository.entries.values())[0] + 80 * MB  # noqa: E731
    monkeypatch.setattr("service.models.on_demand.resident", now)

    async def use():
        for name in "ab":
            (await ask(runtime, name)).usage.holds += held
        await ask(runtime, "c")

    asyncio.run(use())
    assert (State.ON_DEMAND in states(runtime).values()) == goes


def test_a_model_that_is_idle_for_long_is_unloaded(start):
    runtime = start(memory_mb=0, model_idle_s=0.4)

    async def use():
        runtime.on_demand.start()
        model = await ask(runtime, "a")
        model.usage.begin()
        await asyncio.sleep(0.8)
        assert states(runtime)["a"] is State.READY, "a request uses it"
        model.usage.end()
        model.usage.last = perf_counter()
        del model
        await asyncio.sleep(0.2)
        assert states(runtime)["a"] is State.READY
        await asyncio.sleep(1.0)

    asyncio.run(use())
    assert states(runtime)["a"] is State.ON_DEMAND


@pytest.mark.parametrize("pin", ["a", ""])
def test_a_loaded_model_is_loaded_by_hand_though_it_does_not_fit_twice(start, pin):
    runtime = start(pin=pin, memory_mb=150)

    async def use():
        model = await ask(runtime, "a")
        await runtime.on_demand.load("a", perf_counter() + 20)
        assert await ask(runtime, "a") is model

    asyncio.run(use())
    assert runtime.repository.entries["a"].refused == ""


def test_what_was_unloaded_by_hand_is_loaded_by_hand_only(start):
    runtime = start()

    async def use():
        await ask(runtime, "a")
        await asyncio.to_thread(runtime.repository.unload, "a")
        assert states(runtime)["a"] is State.UNLOADED
        with pytest.raises(RequestError, match="unloaded"):
            runtime.repository.find("a")
        await runtime.on_demand.load("a", perf_counter() + 20)

    asyncio.run(use())
    assert states(runtime)["a"] is State.READY
