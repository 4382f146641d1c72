"""The rate is of the last half minute, without the time in which the model was loaded."""

import json

import pytest

from scoring import progress


@pytest.mark.parametrize(
    ("events", "rate", "left"),
    [
        ([(0, 0)], 0, None),
        ([(0, 0), (60, 10)], 0, None),  # one part: how long it took is not known
        ([(0, 0), (60, 10), (61, 20), (62, 30)], 10, 7),
        ([(0, 50), (60, 60), (62, 100)], 20, 0),
        ([(0, 0), (10, 10), (11, 40), (50, 50), (60, 60)], 1, 40),  # the first parts are too long ago
    ],
)
def test_rate_and_time_left(monkeypatch, capsys, events, rate, left):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with progress.shown(as_json=True) as show:
        for time, done in events:
            now[0] = float(time)
            show(100, done, 0)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["rate_per_s"], last["left_s"]) == (rate, left)
