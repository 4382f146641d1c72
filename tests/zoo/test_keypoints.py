"""Keypoints of cards: COCO's are COCO's own, and sets that contradict themselves are refused."""

import numpy as np
import pytest
from msgspec.structs import replace
from pycocotools.cocoeval import Params

from zoo import catalog
from zoo.card import FieldError, Keypoints
from zoo.errors import CardError
from zoo.keypoints import COCO17, find_keypoints


def test_cocos_sigmas_are_those_of_pycocotools():
    np.testing.assert_allclose(COCO17.sigmas, Params("keypoints").kpt_oks_sigmas)
    assert len(COCO17.names) == 17
    mirrored = {
        tuple(sorted(COCO17.names.index(_other_side(COCO17.names[end])) for end in line)) for line in COCO17.skeleton
    }
    assert mirrored == {tuple(sorted(line)) for line in COCO17.skeleton}


def _other_side(name: str) -> str:
    return name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")


def test_a_set_is_found_by_its_name_or_given():
    own = Keypoints(("a",))
    assert (find_keypoints("coco17"), find_keypoints(own)) == (COCO17, own)
    with pytest.raises(CardError, match=r"no keypoints called 'hand21': use one of coco17, or a table \[keypoints\]"):
        find_keypoints("hand21")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "names"),
        ({"names": ("a", "a")}, "two keypoints have one name"),
        ({"names": ("a", "b"), "sigmas": (0.1,)}, "1 sigmas for 2 keypoints"),
        ({"names": ("a", "b"), "sigmas": (0.1, 0.0)}, "sigmas"),
        ({"names": ("a", "b"), "skeleton": ((0, 2),)}, "beyond 0 to 1"),
        ({"names": ("a", "b"), "skeleton": ((-1, 1),)}, "beyond 0 to 1"),
    ],
)
def test_sets_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises((FieldError, ValueError), match=message):
        Keypoints(**fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "pose"}, "`keypoints` belongs to"),
        ({"keypoints": "coco17"}, "`keypoints` belongs to"),
        ({"task": "obb", "stretch": True}, "`stretch` turns the angles"),
    ],
)
def test_cards_need_what_their_task_needs(changes, message):
    card = catalog.find("yolov4_tiny")
    if changes.pop("stretch", False):
        changes["recipe"] = replace(card.recipe, resize="stretch")
    with pytest.raises(ValueError, match=message):
        replace(card, **changes).__post_init__()
