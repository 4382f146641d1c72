"""Arrays of results, of answers that are written by hand."""

import numpy as np
import pytest
from zooserve_client import Result

NAMED = {"class_id": 0, "label": "person", "score": 0.9, "box": [1, 2, 4, 8]}
NAMED |= {"keypoints": {"head": [1, 2, 0.5], "foot": [3, 4, 0.25]}}
COCO = {"category_id": 1, "score": 0.9, "bbox": [1, 2, 3, 6], "keypoints": [1, 2, 0.5, 3, 4, 0.25]}


@pytest.mark.parametrize("found", [NAMED, COCO])
def test_poses_have_one_form(found):
    result = Result("walker", "1", "pose", 9, 9, [found, found])
    assert result.keypoints.tolist() == [[[1, 2, 0.5], [3, 4, 0.25]]] * 2
    assert result.boxes.tolist() == [[1, 2, 4, 8]] * 2


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("boxes", (0, 4)),
        ("class_ids", (0,)),
        ("corners", (0, 4, 2)),
        ("keypoints", (0, 0, 3)),
        ("masks", (0, 7, 9)),
        ("rotated_boxes", (0, 5)),
        ("scores", (0,)),
    ],
)
def test_nothing_found_is_an_empty_array(name, shape):
    assert getattr(Result("walker", "1", "pose", 9, 7, []), name).shape == shape


def test_no_box_is_nan():
    assert np.isnan(Result("net", "1", "classify", 9, 9, [{"class_id": 3, "label": "cup", "score": 1.0}]).boxes).all()
