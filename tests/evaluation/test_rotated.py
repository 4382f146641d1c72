"""AP of rotated boxes: its value for boxes that are off by a known way, Ultralytics' own, and what cannot be judged."""

import json

import numpy as np
import pytest

from evaluation.coco import read_coco
from evaluation.dataset import DataError
from evaluation.recognise import read
from evaluation.rotated import RotatedAveragePrecision, _area, match
from export.ultralytics.library import import_library
from service.results import ImageSize, Result, RotatedBox
from tests.conftest import needs
from tests.service import figures
from zoo.rotated import corners
from zoo.store import Store

BOXES = [(40.0, 44.0, 60.0, 20.0, 0.5), (96.0, 48.0, 20.0, 48.0, 0.3), (30.0, 80.0, 30.0, 10.0, -0.2)]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    figures.publish(folder)
    return Store(folder / "models").latest("decks").card


def file(**changes) -> dict:
    annotations = [
        {"id": i, "image_id": 1, "category_id": 4, "segmentation": [ends.ravel().tolist()]}
        for i, ends in enumerate(corners(np.array(BOXES)))
    ]
    return {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 4, "name": "deck"}],
        "annotations": [one | changes for one in annotations],
    }


def judge(folder, card, boxes, truth=None, scores=(0.9, 0.8, 0.7), class_id=1):
    (folder / "a.png").write_bytes(b"")
    (folder / "instances.json").write_text(json.dumps(truth or file()))
    dataset = read(str(folder), card, "coco", None)
    found = [
        RotatedBox(class_id, "deck", score, (), box[:2], box[2:4], box[4])
        for box, score in zip(boxes, scores, strict=True)
    ]
    judge = dataset.judge
    judge.add(judge.compare(dataset.examples[0], Result("decks", "1", "obb", ImageSize(128, 96), found)))
    return {one.name: one.value for one in judge.scores().measures}


@pytest.mark.parametrize(
    ("boxes", "ap", "ap50"),
    [
        (BOXES, 1.0, 1.0),
        ([(x, y, h, w, a + np.pi / 2) for x, y, w, h, a in BOXES], 1.0, 1.0),  # the same boxes
        ([(x + 60, y, w, h, a) for x, y, w, h, a in BOXES], 0.0, 0.0),
        ([BOXES[0], BOXES[1], BOXES[0]], 0.665, 0.665),  # the third object is not found: recalls beyond 2/3 count 0
    ],
)
def test_known_boxes_have_the_ap_that_follows(tmp_path, card, boxes, ap, ap50):
    measures = judge(tmp_path, card, boxes)
    assert measures["AP"] == pytest.approx(ap, abs=0.01)
    assert measures["AP50"] == pytest.approx(ap50, abs=0.01)


def test_of_two_objects_side_by_side_each_has_an_answer(tmp_path, card):
    """Both answers overlap the first object most."""
    objects = [(40.0, 44.0, 60.0, 20.0, 0.0), (48.0, 44.0, 60.0, 20.0, 0.0)]
    truth = file()
    truth["annotations"] = truth["annotations"][:2]
    for one, ends in zip(truth["annotations"], corners(np.array(objects)), strict=True):
        one["segmentation"] = [ends.ravel().tolist()]
    answers = [objects[0], (42.0, 44.0, 60.0, 20.0, 0.0)]
    assert judge(tmp_path, card, answers, truth, (0.9, 0.8))["AP50"] == pytest.approx(1.0, abs=0.01)


def test_the_matches_are_those_of_ultralytics():
    needs("ultralytics")
    torch = pytest.importorskip("torch")
    validator = import_library("ultralytics.engine.validator").BaseValidator
    theirs = validator.__new__(validator)
    theirs.iouv = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)
    random = np.random.default_rng(0)
    for _ in range(50):
        overlap = random.random((random.integers(1, 8), random.integers(1, 20))) ** 0.5
        classes = [torch.from_numpy(random.integers(0, 2, side)) for side in overlap.shape]
        expected = theirs.match_predictions(classes[1], classes[0], torch.from_numpy(overlap))
        same = classes[0].numpy()[:, None] == classes[1].numpy()
        assert (match(np.where(same, overlap, 0)) == expected.numpy().T).all()


def test_another_class_is_not_found(tmp_path, card):
    assert judge(tmp_path, card, BOXES, class_id=0)["AP"] == 0


def test_crowds_are_left_out(tmp_path, card):
    truth = file()
    truth["annotations"][0]["iscrowd"] = 1
    assert judge(tmp_path, card, BOXES[1:], truth, (0.9, 0.8))["AP"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": None, "bbox": [1, 2, 3, 4]}, "no polygon as `segmentation`"),
        ({"iscrowd": 1}, "there is nothing to find"),
    ],
)
def test_files_without_what_is_needed_are_refused(tmp_path, card, changes, message):
    with pytest.raises(DataError, match=message):
        judge(tmp_path, card, BOXES, file(**changes))


def test_the_area_is_that_of_ultralytics():
    needs("ultralytics")
    theirs = import_library("ultralytics.utils.metrics").compute_ap
    random = np.random.default_rng(0)
    for _ in range(20):
        matched = random.random(30) < 0.6
        right = np.cumsum(matched)
        expected = theirs(right / 40, right / np.arange(1, 31))[0]
        assert _area(matched, 40) == pytest.approx(expected, abs=1e-6)


def test_the_selection_is_said(tmp_path, card):
    (tmp_path / "instances.json").write_text(json.dumps(file()))
    notes = read_coco(tmp_path, tmp_path / "instances.json", card).notes
    assert "score_threshold 0.001, iou_threshold 0.65, max_detections 100, 1000 candidates, one label each" in notes[0]


def test_without_any_image_there_is_nothing_to_judge(card):
    """As where none of the images could be read."""
    with pytest.raises(DataError, match="there is nothing to find"):
        RotatedAveragePrecision([], card).scores()
