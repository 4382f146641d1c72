"""A store whose models are loaded when they are asked for."""

import shutil
from time import perf_counter

import msgspec
import pytest

from service.models.footprint import Footprint
from service.runtime import Runtime
from service.settings import Settings
from zoo.served_card import read_served_card, write_served_card

MB = 1_000_000
TAKES = Footprint(100 * MB, peak=100 * MB, seconds=0.01)


@pytest.fixture
def store(models, tmp_path):
    """A store with one classifier under several names; none is its task's default."""
    for name in "abc":
        add(tmp_path / "models", models, name)
    return tmp_path / "models"


def add(store, models, name, *, version="1", broken=False):
    folder = shutil.copytree(models / "lenet5" / "1", store / name / version)
    card = read_served_card(folder / "card.json")
    golden = card.golden
    if broken:
        predictions = (msgspec.structs.replace(golden[0].predictions[0], class_id=5, label="5"),)
        golden = (msgspec.structs.replace(golden[0], predictions=predictions), *golden[1:])
    write_served_card(msgspec.structs.replace(card, name=name, version=version, golden=golden), folder / "card.json")


@pytest.fixture
def start(store, monkeypatch):
    """Start the models of a store, each of which takes 100 MB and may be unloaded at once."""
    monkeypatch.setattr("service.models.footprint.Footprints.measure", lambda *_: TAKES)
    monkeypatch.setattr("service.models.budget._STAY", 0.0)
    monkeypatch.setattr("service.models.budget._STAY_S", 0.0)
    started = []

    def begin(**settings) -> Runtime:
        runtime = Runtime(Settings(**{"models": str(store), "watch_s": 0, "threads": 1, "memory_mb": 250} | settings))
        started.append(runtime)
        runtime.repository.load()
        return runtime

    yield begin
    for runtime in started:
        runtime.stop()


async def ask(runtime, name, seconds=20.0):
    """Wait until a model is loaded, as a request does; return it."""
    entry = runtime.repository.entries[name]
    if entry.model is None:
        await runtime.on_demand.wait(entry, perf_counter() + seconds)
    return entry.model


def states(runtime):
    return {name: entry.state for name, entry in runtime.repository.entries.items()}
