"""Instances: objects with their masks, from outputs with known masks."""

import msgspec
import numpy as np
import pytest
from pycocotools import mask as coco

from service.tasks.segment import Options, answer
from service.vision import masks
from zoo.card import Nms, Recipe
from zoo.recipe import placement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

LEFT, RIGHT, ALL, NOTHING = (1, 0), (-1, 0), (0, 1), (0, -1)
"""Coefficients of the two prototypes: halves of the input, and a constant."""


class Card(msgspec.Struct):
    recipe: Recipe = Recipe(160, 160, "letterbox")
    labels: tuple[str, ...] = ("cat", "dog")
    nms: bool = True
    nms_options: Nms = Nms()


def outputs(*candidates):
    """Candidates as (class, score, box, coefficients), best first, the second image of a batch."""
    columns = (np.array(column, np.float32) for column in zip(*candidates, strict=True))
    classes, scores, boxes, coefficients = (np.stack([column, column]) for column in columns)
    halves = np.where(np.arange(40) < 20, 20, -20)
    prototypes = np.stack([np.tile(halves, (40, 1)), np.full((40, 40), 20)]).astype(np.float32)
    return {
        "boxes": boxes,
        "scores": scores,
        "classes": classes.astype(np.int32),
        "coefficients": coefficients,
        "prototypes": np.stack([prototypes * 0, prototypes]),
    }


def found(candidates, size=(160, 160), card=None, **options):
    card = card or Card()
    return answer(outputs(*candidates), 1, card, placement(card.recipe, *size), Options(**options))


@pytest.mark.parametrize(
    ("candidates", "options", "expected"),
    [
        ([(0, 0.2, (0, 0, 80, 80), ALL)], {}, []),
        ([(0, 0.2, (0, 0, 80, 80), ALL)], {"score_threshold": 0.1}, [("cat", 0.2, 0.25)]),
        # the second cat overlaps the first; the dog is none, and keeps its own coefficients
        (
            [(0, 0.9, (0, 0, 80, 80), ALL), (0, 0.8, (2, 0, 80, 80), ALL), (1, 0.7, (40, 0, 120, 160), LEFT)],
            {},
            [("cat", 0.9, 0.25), ("dog", 0.7, 0.25)],
        ),
        (
            [(0, 0.9, (0, 0, 80, 80), ALL), (0, 0.8, (0, 0, 80, 80), NOTHING)],
            {"max_detections": 1},
            [("cat", 0.9, 0.25)],
        ),
        (
            [(0, 0.9, (0, 0, 80, 80), ALL), (0, 0.8, (0, 0, 80, 80), NOTHING)],
            {"iou_threshold": 1},
            [("cat", 0.9, 0.25), ("cat", 0.8, 0.0)],
        ),
        # partly outside: what lies in the image is answered
        ([(1, 0.9, (-60, -60, 40, 40), ALL)], {}, [("dog", 0.9, 1 / 16)]),
        ([(1, 0.9, (-60, -60, 0, 40), ALL)], {}, []),
    ],
)
def test_the_options_select_objects(candidates, options, expected):
    answered = [(one.label, one.score, one.area) for one in found(candidates, **options)]
    assert answered == [(label, pytest.approx(score), pytest.approx(area)) for label, score, area in expected]


def test_without_nms_overlapping_boxes_stay():
    twice = [(0, 0.9, (0, 0, 80, 80), ALL), (0, 0.8, (0, 0, 80, 80), ALL)]
    assert len(found(twice, card=Card(nms=False))) == 2


@pytest.mark.parametrize("size", [(160, 160), (320, 160), (91, 700), (1600, 1200)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("coefficients", [LEFT, RIGHT, ALL])
def test_a_mask_is_limited_to_its_box_and_the_image(size, resize, coefficients):
    """The box reaches into the padding of the letterbox. The mask ends at the edges of image, box and object."""
    width, height = size
    (one,) = found([(0, 0.9, (32, -20, 120, 140), coefficients)], size, Card(Recipe(160, 160, resize)))
    mask = coco.decode(msgspec.to_builtins(one.mask))
    assert mask.shape == (height, width)
    assert one.area == pytest.approx(mask.mean(), abs=1e-6)
    where = placement(Recipe(160, 160, resize), *size)
    middle = (80 - where.offset_x) / where.scale_x
    x0, y0, x1, y1 = one.box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    expected = {LEFT: (x0, y0, middle, y1), RIGHT: (middle, y0, x1, y1), ALL: (x0, y0, x1, y1)}[coefficients]
    rows, columns = np.nonzero(mask)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx(expected, abs=1.01)
    assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


@pytest.mark.parametrize("form", ["rle", "png", "polygon", "none"])
def test_every_form_encodes_the_same_mask(form):
    (one,) = found([(0, 0.9, (32, 20, 120, 140), LEFT)], (640, 480), mask=form)
    (rle,) = found([(0, 0.9, (32, 20, 120, 140), LEFT)], (640, 480))
    assert (one.box, one.area, one.score) == (rle.box, rle.area, rle.score)
    if form == "none":
        assert one.mask is None
        assert "mask" not in msgspec.to_builtins(one)
    else:
        assert np.array_equal(masks.decode(one.mask, 640, 480) > 0, masks.decode(rle.mask, 640, 480) > 0)


def test_the_answer_in_json():
    (one,) = found([(1, 0.9, (0, 0, 80, 80), ALL)], mask="none")
    assert msgspec.json.decode(msgspec.json.encode(one)) == {
        "class_id": 1,
        "label": "dog",
        "score": pytest.approx(0.9),
        "box": [0, 0, 80, 80],
        "area": 0.25,
    }
