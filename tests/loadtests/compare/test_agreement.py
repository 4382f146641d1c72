"""When two answers are the same."""

import base64

import cv2
import numpy as np
import pytest

from loadtests.compare.agreement import agree


def png(value, size=(8, 6)):
    data = cv2.imencode(".png", np.full(size, value, np.uint8))[1]
    return {"png": base64.b64encode(data.tobytes()).decode()}


CLASS = {"class_id": 3, "label": "x", "score": 0.5}
BOX = {**CLASS, "box": [1.0, 2.0, 30.0, 40.0]}
MASK = {"class_id": 1, "label": "x", "area": 0.5, "mask": png(100)}


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        ([], [], True),
        ([CLASS], [], False),
        ([CLASS | {"score": 0.5009}], [CLASS], True),
        ([CLASS | {"score": 0.502}], [CLASS], False),
        ([CLASS | {"class_id": 4}], [CLASS], False),
        ([BOX | {"box": [1.5, 2.5, 29.1, 40.9]}], [BOX], True),
        ([BOX | {"box": [1.0, 2.0, 30.0, 41.1]}], [BOX], False),
        ([MASK | {"mask": png(101)}], [MASK], True),
        ([MASK | {"mask": png(102)}], [MASK], False),
        ([MASK | {"mask": png(100, (6, 8))}], [MASK], False),
        ([MASK | {"area": 0.51}], [MASK], False),
    ],
)
def test_agree(given, expected, same):
    assert agree(given, expected) == same


def test_slack_widens_every_tolerance():
    given = BOX | {"score": 0.504, "box": [5.0, 2.0, 30.0, 40.0]}
    assert agree([given], [BOX], slack=5)
    assert not agree([given], [BOX], slack=3)


@pytest.mark.parametrize("given", [CLASS, BOX | {"box": [1.0]}, MASK | {"mask": {"png": "AAAA"}}, MASK | {"mask": {}}])
def test_what_is_no_prediction_of_the_task(given):
    expected = MASK if "mask" in given else BOX
    with pytest.raises((LookupError, ValueError)):
        agree([given | {"class_id": expected["class_id"]}], [expected])
