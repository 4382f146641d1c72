"""COCO files that pycocotools would misread: each is read as it is meant, or refused with a sentence."""

import pytest

from evaluation.coco import read_coco
from evaluation.dataset import DataError
from tests.evaluation.coco_files import BOXES, SIDE, first, mask_of, plain_runs, runs, truth_file

RIGHT = {
    "as it should be": {},
    "ids from 0": {"annotations": lambda i, one: {"id": i}},
    "one id for all": {"annotations": lambda i, one: {"id": 5}},
    "no ids": {"annotations": lambda i, one: {"id": ...}},
    "ids as text": {"annotations": lambda i, one: {"id": f"a{i}"}},
    "negative ids": {"annotations": lambda i, one: {"id": -i}},
    "no iscrowd": {"annotations": lambda i, one: {"iscrowd": ...}},
    "iscrowd as a boolean": {"annotations": lambda i, one: {"iscrowd": False}},
    "iscrowd null": {"annotations": lambda i, one: {"iscrowd": None}},
    "no area": {"annotations": lambda i, one: {"area": ...}},
    "area 0": {"annotations": lambda i, one: {"area": 0}},
    "negative area": {"annotations": lambda i, one: {"area": -1}},
    "image ids as text": {
        "images": lambda i, one: {"id": str(one["id"])},
        "annotations": lambda i, one: {"image_id": str(one["image_id"])},
    },
    "image ids as text in one place": {"annotations": lambda i, one: {"image_id": f"0{one['image_id']}"}},
    "image ids of letters": {
        "images": lambda i, one: {"id": f"x{one['id']}"},
        "annotations": lambda i, one: {"image_id": f"x{one['image_id']}"},
    },
    "image id 0": {
        "images": lambda i, one: {"id": i},
        "annotations": lambda i, one: {"image_id": one["image_id"] - 1},
    },
    "numbers as floats": {
        "images": lambda i, one: {"id": float(one["id"]), "width": 20.0},
        "annotations": lambda i, one: {"image_id": float(one["image_id"]), "iscrowd": 0.0},
    },
    "category id 0": {
        "categories": lambda i, one: {"id": i},
        "annotations": lambda i, one: {"category_id": i % 2},
    },
    "category ids as text": {
        "categories": lambda i, one: {"id": "abc"[i]},
        "annotations": lambda i, one: {"category_id": "abc"[i % 2]},
    },
    "no sizes": {"images": lambda i, one: {"width": ..., "height": ...}},
    "no box": {"annotations": lambda i, one: {"bbox": ...}},
    "an empty box": {"annotations": lambda i, one: {"bbox": []}},
    "one polygon, not a list of them": {"annotations": lambda i, one: {"segmentation": one["segmentation"][0]}},
    "a polygon of two points beside": {
        "annotations": lambda i, one: {"segmentation": [[1, 1, 5, 5], *one["segmentation"], [3, 3]]}
    },
    "compressed runs": {"annotations": lambda i, one: {"segmentation": runs(i, one)}},
    "compressed runs, no box": {"annotations": lambda i, one: {"segmentation": runs(i, one), "bbox": ...}},
    "runs": {"annotations": lambda i, one: {"segmentation": plain_runs(i, one)}},
}


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_perfect_answers_have_an_ap_of_one_for_every_valid_file(judge, task, changes):
    measures, scores, dataset = judge(truth_file(**changes), task)
    assert {name: measures[name] for name in measures if name.endswith(("AP", "AR"))} == dict.fromkeys(
        ("AP", "AR") if task == "detect" else ("mask AP", "mask AR", "box AP", "box AR"), pytest.approx(1.0)
    )
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2), ("dog", 2)]
    assert len(dataset.examples) == 2


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_missing_answer_lowers_the_ap(judge, task):
    for ids in (lambda i, one: {"id": i}, lambda i, one: {"id": 0}):
        measures, _, _ = judge(truth_file(annotations=ids), task, answers={"cat": BOXES["cat"]})
        assert next(iter(measures.values())) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "task", "note"),
    [
        ({"bbox": [5, 5, 0, 10], "segmentation": ...}, "detect", "annotations left out: their boxes have no area"),
        ({"image_id": 99}, "detect", "annotations left out: the file does not list their images"),
        ({"ignore": 1}, "detect", None),
        ({"iscrowd": 1}, "detect", None),
        ({"iscrowd": True}, "detect", None),
        ({"ignore": 1}, "segment", None),
        ({"segmentation": [[1, 1, 5, 5]]}, "segment", None),  # covers nothing
    ],
)
def test_ignored_annotations_do_not_lower_the_ap(judge, change, task, note):
    file = truth_file(annotations=lambda i, one: change if i % 2 else {})
    measures, scores, dataset = judge(file, task, answers={"cat": BOXES["cat"]})
    assert next(iter(measures.values())) == pytest.approx(1.0)
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2)]
    assert dataset.notes[1:] == ((f"2 {note}{dataset.notes[1].partition(note)[2]}",) if note else ())


def test_boxes_outside_of_their_images_are_noted(judge):
    file = truth_file(annotations=lambda i, one: {"bbox": [15, 15, 25, 25] if i == 0 else one["bbox"]})
    assert "1 boxes reach out of their images: `bbox` is [x, y, width, height]" in judge(file)[2].notes[-1]


def test_categories_of_one_name_are_one_class(judge):
    file = truth_file()
    file["categories"].append({"id": 11, "name": "Cat"})
    file["annotations"][0]["category_id"] = 11
    measures, scores, _ = judge(file)
    assert measures["AP"] == pytest.approx(1.0)
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2), ("dog", 2)]


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        (
            first({"category_id": 8}),
            "detect",
            r"\[0\] has the category_id 8; the file's categories are 7, 9",
        ),
        ({"annotations": lambda i, one: {"image_id": f"a{i}"}}, "detect", "none of the 4 annotations is of an image"),
        ({"images": lambda i, one: {"id": 1}}, "detect", "the image id 1 is that of 1.png and of 2.png"),
        ({"images": lambda i, one: {"file_name": "a"}}, "detect", "a is listed twice, as image 1 and 2; join them"),
        ({"categories": lambda i, one: {"id": 7}}, "detect", "the category id 7 is that of 'cat' and of 'dog'"),
        (first({"bbox": [5, 5, -3, 5]}), "detect", r"annotations\[0\] has the bbox \[5.0, 5.0, -3.0, 5.0\]; expected"),
        (first({"bbox": [5, 5, 3]}), "detect", r"annotations\[0\] has the bbox \[5.0, 5.0, 3.0\]; expected"),
        (first({"bbox": [1, 2, 3, 4, 5]}), "detect", r"is not a COCO file of instances: .*length <= 4"),
        (first({"bbox": "1 2 3 4"}), "detect", "is not a COCO file of instances: .*bbox"),
        (
            first({"bbox": ..., "segmentation": ...}),
            "detect",
            r"\[0\] has neither `bbox` nor `segmentation`",
        ),
        (
            first({"segmentation": ...}),
            "segment",
            r"\[0\] has no `segmentation`, and yolov4_tiny is judged by",
        ),
        (first({"segmentation": []}), "segment", r"annotations\[0\] has no `segmentation`"),
        (first({"segmentation": "a"}), "segment", r"annotations\[0\]: a `segmentation` is a list of polygons"),
        (first({"segmentation": [[1, 2, 3]]}), "segment", r"annotations\[0\]: a `segmentation` is a list of polygons"),
        (first({"segmentation": [[1, 2, None, 3]]}), "segment", "a `segmentation` is a list of polygons"),
        (first({"segmentation": {"counts": [1]}}), "segment", "run lengths need `size`"),
        (first({"segmentation": {"size": [20, 20], "counts": [1.5]}}), "segment", "run lengths need `size`"),
        (first({"segmentation": {"size": [20, 20], "counts": [9]}}), "segment", "cover 9 pixels, expected 20 x 20"),
        (first({"segmentation": {"size": [20, 20], "counts": ""}}), "segment", "are not compressed run lengths"),
        (first({"segmentation": {"size": [20, 20], "counts": "zz"}}), "segment", "are not compressed run lengths"),
        (first({"segmentation": {"size": [20, 20], "counts": "5"}}), "segment", "cover 5 pixels, expected 20 x 20"),
        (first({"segmentation": {"size": [9, 20], "counts": [180]}}), "segment", r"of \(9, 20\) pixels"),
        (first({"segmentation": [[1, 1, 9e9, 1, 1, 9]]}), "segment", r"a polygon reaches 9e\+09 pixels far"),
        (
            {"images": lambda i, one: {"width": 30}},
            "detect",
            "are of 30 x 20 pixels, the image has 20 x 20",
        ),
        ({"annotations": lambda i, one: {"category_id": 7, "ignore": 1}}, "detect", "there is nothing to find"),
        ({"annotations": lambda i, one: {"bbox": [1, 1, 0, 0]}}, "detect", "holds no object of a class that"),
        ({"images": lambda i, one: {"file_name": 1}}, "detect", "is not a COCO file of instances"),
    ],
)
def test_inconsistent_files_are_refused(judge, changes, task, message):
    with pytest.raises(DataError, match=message):
        judge(truth_file(**changes), task)


def test_a_byte_order_mark_is_accepted(judge, tmp_path, loaded):
    judge(truth_file())
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(tmp_path, path, loaded("yolov4_tiny").model.card).examples) == 2


def test_masks_and_boxes_are_scored_separately(judge):
    """A square of 10 x 10: found in its whole, then its left half in the right box."""
    file = truth_file(annotations=lambda i, one: {"category_id": 7, "bbox": BOXES["cat"]})
    file["annotations"] = file["annotations"][::2]
    assert judge(file, "segment", answers={"cat": BOXES["cat"]})[0]["mask AP"] == pytest.approx(1.0)
    left = {"size": [SIDE, SIDE], "counts": mask_of(5, 5, 5, 10).counts}
    for one in file["annotations"]:
        one["segmentation"] = left
    measures, _, _ = judge(file, "segment", answers={"cat": BOXES["cat"]})
    assert measures["mask AP"] == pytest.approx(0.1)  # IoU 0.5 passes the first threshold alone
    assert measures["box AP"] == pytest.approx(1.0)


def test_the_ap_without_answers_is_zero(judge):
    assert judge(truth_file(), answers={})[0]["AP"] == 0.0


def test_wrong_image_sizes_are_refused(judge):
    with pytest.raises(DataError, match="of 20 x 20 pixels, the image has 20 x 40, turned as its EXIF says"):
        judge(truth_file(), sizes={2: (20, 40)})
