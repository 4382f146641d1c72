"""When an answer is the same as the first, and when it is not."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from loadtests.answers import Answers, same


def mask(columns):
    """A mask of 10 x 1000 pixels with so many columns set."""
    pixels = np.zeros((10, 1000), np.uint8, order="F")
    pixels[:, :columns] = 1
    return {"size": [10, 1000], "counts": coco.encode(pixels)["counts"].decode()}


def one(class_id=1, score=0.5, **more):
    return {"class_id": class_id, "label": "x", "score": score, **more}


SAME = {
    "identical": ([one()], [one()]),
    "last digits": ([one(score=0.5)], [one(score=0.5004)]),
    "a box of a large image": ([one(box=[10.0, 20.0, 3000.0, 40.0])], [one(box=[10.0, 20.0, 3001.0, 40.0])]),
    "two with the same score": ([one(1), one(2)], [one(2), one(1)]),
    "a mask that differs a little": ([one(mask=mask(500))], [one(mask=mask(498))]),
    "nothing": ([], []),
}
OTHER = {
    "class": ([one(1)], [one(2)]),
    "score": ([one(score=0.5)], [one(score=0.55)]),
    "box": ([one(box=[10.0, 20.0, 30.0, 40.0])], [one(box=[10.0, 20.0, 31.0, 40.0])]),
    "mask": ([one(mask=mask(50))], [one(mask=mask(52))]),
    "size of the mask": ([one(mask=mask(50))], [one(mask=mask(50) | {"size": [1000, 10]})]),
    "one more": ([one()], [one(), one(2)]),
    "field": ([one()], [one(box=[1.0])]),
    "order within a class": ([one(score=0.9), one(score=0.3)], [one(score=0.3), one(score=0.9)]),
    "kind": ([one()], {"predictions": []}),
    "text for a number": (one(score=0.5), one(score="0.5")),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same(case):
    assert same(*SAME[case])


@pytest.mark.parametrize("case", OTHER)
def test_another(case):
    assert not same(*OTHER[case])


def test_what_was_learnt():
    answers = Answers()
    body = json.dumps({"predictions": [one(score=0.5)]}).encode()
    answers.learn("a", body)
    answers.learn("b", json.dumps({"predictions": []}).encode())
    assert answers.right("a", body)
    assert not answers.right("b", body)
    near = json.dumps({"predictions": [one(score=0.5001)]}).encode()
    assert [answers.right("a", near) for _ in range(2)] == [True, True]
    assert not answers.right("a", b"<html>")
    with pytest.raises(KeyError):
        answers.right("c", body)
