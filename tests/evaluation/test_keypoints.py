"""AP of poses by OKS: its value for keypoints that are off by a known way, and what cannot be judged."""

import json

import msgspec
import numpy as np
import pytest

from evaluation.coco import read_coco
from evaluation.dataset import DataError
from service.results import ImageSize, Pose, Result
from tests.service import figures
from zoo.store import Store

SIGMA, SIDE = 0.1, 100.0
TRUTH = [[20, 30, 2, 60, 30, 1, 60, 90, 2], [120, 130, 2, 0, 0, 0, 160, 190, 2]]  # the second hides its hip
BOXES = [[10, 20, SIDE, SIDE], [110, 120, SIDE, SIDE]]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    figures.publish(folder)
    served = Store(folder / "models").latest("walker").card
    return msgspec.structs.replace(
        served, keypoints=msgspec.structs.replace(served.keypoints, sigmas=(SIGMA, SIGMA, SIGMA))
    )


def coco_file(**changes) -> dict:
    annotations = [
        {"id": i, "image_id": 1, "category_id": 5, "bbox": box, "area": SIDE**2, "keypoints": points, "iscrowd": 0}
        for i, (box, points) in enumerate(zip(BOXES, TRUTH, strict=True))
    ]
    category = {"id": 5, "name": "walker", "keypoints": ["head", "hip", "foot"]}
    return {"images": [{"id": 1, "file_name": "a.png"}], "categories": [category], "annotations": annotations} | changes


def judge(folder, card, file: dict, answers: list[list[float]]):
    (folder / "a.png").write_bytes(b"")
    (folder / "person_keypoints.json").write_text(json.dumps(file))
    dataset = read_coco(folder, folder / "person_keypoints.json", card)
    poses = []
    for box, points in zip(BOXES, answers, strict=True):
        named = dict(zip(figures.POINTS.names, [(x, y, 1.0) for x, y, _ in np.reshape(points, (-1, 3))], strict=True))
        poses.append(Pose(0, "walker", 0.9, (box[0], box[1], box[0] + box[2], box[1] + box[3]), named))
    result = Result("walker", "1", "pose", ImageSize(300, 300), poses)
    dataset.judge.add(dataset.judge.compare(dataset.examples[0], result))
    return {one.name: one.value for one in dataset.judge.scores().measures}


@pytest.mark.parametrize(
    ("oks", "ap"), [(1.0, 1.0), (0.92, 0.9), (0.72, 0.5), (0.51, 0.1), (0.4, 0.0)]
)  # the thresholds are .5, .55, ... .95
def test_keypoints_off_by_a_known_way_have_the_ap_that_follows(tmp_path, card, oks, ap):
    """OKS = exp(-d^2 / (2 area (2 sigma)^2)), Ronchi and Perona 2017; a hidden keypoint does not count."""
    way = (-2 * SIDE**2 * (2 * SIGMA) ** 2 * np.log(oks)) ** 0.5
    moved = [[v + way if i % 3 == 0 else v for i, v in enumerate(points)] for points in TRUTH]
    measures = judge(tmp_path, card, coco_file(), moved)
    assert measures["keypoint AP"] == pytest.approx(ap, abs=1e-6)
    assert measures["box AP"] == pytest.approx(1.0)
    assert {"keypoint AP50", "keypoint AP large", "keypoint AR"} <= measures.keys()


@pytest.mark.parametrize(
    "change", [{"keypoints": [0] * 9}, {"ignore": 1}, {"iscrowd": 1}, {"keypoints": None}, {"keypoints": []}]
)
def test_what_has_no_keypoints_or_does_not_count_need_not_be_found(tmp_path, card, change):
    file = coco_file()
    file["annotations"][1] |= change
    far = [TRUTH[0], [v + 40 for v in TRUTH[1]]]
    assert judge(tmp_path, card, file, far)["keypoint AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "sigmas", "message"),
    [
        ({}, (), "walker has no sigmas: give them in its card"),
        (
            {"categories": [{"id": 5, "name": "walker", "keypoints": ["hip", "head", "foot"]}]},
            figures.POINTS.sigmas,
            "the category 'walker' has the keypoints hip, head, foot; the model's are head, hip, foot",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 5, "bbox": BOXES[0], "keypoints": [1, 2, 2]}]},
            figures.POINTS.sigmas,
            "has 3 numbers as keypoints, expected 9",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 5, "bbox": BOXES[0], "keypoints": []}]},
            figures.POINTS.sigmas,
            "holds no keypoints; COCO's are in person_keypoints",
        ),
    ],
)
def test_files_that_would_be_misread_are_refused(tmp_path, card, changes, sigmas, message):
    changed = msgspec.structs.replace(card.keypoints, sigmas=sigmas)
    with pytest.raises(DataError, match=message):
        judge(tmp_path, msgspec.structs.replace(card, keypoints=changed), coco_file(**changes), TRUTH)
