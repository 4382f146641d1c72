"""The collector is calmed, and its pauses are seen."""

import gc

import pytest

from service.telemetry.garbage import Pauses


@pytest.fixture
def pauses():
    threshold = gc.get_threshold()
    pauses = Pauses()
    pauses.freeze()
    yield pauses
    gc.callbacks.remove(pauses._note)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_pauses_are_noted(pauses):
    assert gc.get_freeze_count() > 1000
    assert pauses.count == 0
    gc.collect()
    assert pauses.count == 1
    assert 0 < pauses.longest < 10


def test_the_server_tells_the_longest_pause(server):
    text = server.client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("zooserve_gc_longest_pause_seconds ")]
    assert 0 <= float(line.split()[1]) < 1
