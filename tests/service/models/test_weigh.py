"""What a model takes, as a process of its own measures it."""

import os
import subprocess
import sys

import msgspec
import pytest

from service.models.footprint import Footprint, Footprints
from service.settings import Settings
from zoo.served_card import read_served_card

TAKES = Footprint(100_000_000, peak=100_000_000, seconds=0.01)


@pytest.mark.parametrize(("parent", "code"), [(os.getpid, 0), (lambda: 0, 1)], ids=["lives", "has ended"])
def test_it_measures_for_as_long_as_the_process_that_asked_lives(models, parent, code):
    command = [sys.executable, "-m", "service.models.weigh", str(models / "lenet5" / "1"), "1", "0", str(parent())]
    settings = msgspec.json.encode(Settings(device="cpu", max_batch=1))
    ended = subprocess.run(command, check=False, input=settings, capture_output=True, timeout=60)
    assert ended.returncode == code, ended.stderr
    if not code:
        assert msgspec.json.decode(ended.stdout, type=Footprint).seconds > 0


@pytest.mark.parametrize(("busy", "measured"), [(False, 1), (True, 0)])
def test_what_was_measured_on_a_busy_machine_is_measured_once_more(models, monkeypatch, busy, measured):
    found = []
    monkeypatch.setattr("service.models.footprint.recall", lambda *_: msgspec.structs.replace(TAKES, disturbed=True))
    monkeypatch.setattr("service.models.footprint.busy", lambda: busy)
    monkeypatch.setattr(Footprints, "_weigh", lambda *_: found.append(1) or TAKES)
    footprints, card = Footprints(Settings(device="cpu")), read_served_card(models / "lenet5" / "1" / "card.json")
    for _ in range(2):
        footprints.measure(card, models)
    assert len(found) == measured


def test_what_was_measured_is_known_though_it_cannot_be_kept(models, monkeypatch):
    measured = []
    monkeypatch.setattr("service.models.footprint.recall", lambda *_: None)
    monkeypatch.setattr(Footprints, "_weigh", lambda *_: measured.append(1) or TAKES)
    footprints, card = Footprints(Settings(device="cpu")), read_served_card(models / "lenet5" / "1" / "card.json")
    assert footprints.measure(card, models) == TAKES
    footprints.note(card, 7.0)
    assert footprints.measure(card, models).seconds == 7.0
    assert measured == [1]
