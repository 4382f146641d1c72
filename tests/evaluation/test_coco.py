"""AP of real answers: 1 where the truth is what the model answers, and less when the truth lies elsewhere.

And of files that pycocotools would misread: each is read as it is meant, or refused with a sentence.
"""

import contextlib
import io
import json

import msgspec
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.average_precision import OPTIONS
from evaluation.coco import read_coco
from evaluation.dataset import DataError
from evaluation.run import judge_all
from service.results import Detection, ImageSize, Instance, Result, RunLength

SURE = 0.3


@pytest.fixture
def truth(street, loaded):
    """COCO's file for what the model finds in two photos, moved right by a share of each box's width."""
    model, predictor, _ = loaded("yolov4_tiny")

    def make(shift: float = 0.0, rename=lambda label: label):
        images, annotations, names = [], [], {}
        for i, path in enumerate(sorted(street.iterdir()), start=1):
            width, height = Image.open(path).size
            images.append({"id": i, "file_name": path.name, "width": width, "height": height, "licence": 0})
            for found in predictor.predict(path.read_bytes(), model, OPTIONS).predictions:
                if found.score >= SURE:
                    category = names.setdefault(rename(found.label), len(names) + 17)
                    x0, y0, x1, y1 = found.box
                    box = [x0 + shift * (x1 - x0), y0, x1 - x0, y1 - y0]
                    one = {"id": len(annotations), "image_id": i, "category_id": category, "bbox": box}
                    annotations.append(one | {"area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": i, "name": name} for name, i in names.items()]
        file = street.parent / "instances.json"
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return file

    return make


def judged(loaded, folder, file):
    model, predictor, _ = loaded("yolov4_tiny")
    dataset = read_coco(folder, file, model.card)
    scores, problems = judge_all(predictor, model, dataset.examples, dataset.judge, threads=2)
    assert not problems
    return {one.name: one.value for one in scores.measures}, scores, dataset


def test_the_models_own_answers_are_perfect(street, loaded, truth):
    measures, scores, _ = judged(loaded, street, truth())
    assert [measures[name] for name in ("AP", "AP50", "AP75", "AR")] == pytest.approx([1.0] * 4)
    assert {"cup", "cat"} <= {one.label for one in scores.per_class}
    assert all(one.value == pytest.approx(1.0) and one.count >= 1 for one in scores.per_class)


@pytest.mark.parametrize(
    ("shift", "ap"),
    [(0.15, 0.5), (0.5, 0.0)],  # IoU (1 - s) / (1 + s): .739 passes 5 of the 10 thresholds, .333 none
)
def test_boxes_that_lie_elsewhere_cost_ap(street, loaded, truth, shift, ap):
    measures, _, _ = judged(loaded, street, truth(shift))
    # A weak answer beside a sure one may lie better by chance.
    assert measures["AP"] == pytest.approx(ap, abs=0.05)
    assert measures["AP50"] > 0.9 if ap else measures["AP50"] < 0.2
    assert measures["AP75"] < 0.4


def test_categories_that_the_model_lacks_are_told(street, loaded, truth):
    file = truth(rename=lambda label: "saucer" if label == "cup" else label)
    measures, _, dataset = judged(loaded, street, file)
    assert dataset.notes[-1] == "left out, since the model does not know them: saucer"
    assert measures["AP"] == pytest.approx(1.0)
    with pytest.raises(DataError, match=r"knows none of the .* categories"):
        judged(loaded, street, truth(rename="my {}".format))


def test_a_file_that_is_not_cocos(street, loaded, tmp_path):
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"x\.json is no COCO file of instances: .*categories"):
        read_coco(street, tmp_path / "x.json", loaded("yolov4_tiny").model.card)


# ---- Files with two images of 20 x 20 pixels, a cat and a dog in each ----------------------------------------------

BOXES = {"cat": [5.0, 5.0, 10.0, 10.0], "dog": [1.0, 1.0, 3.0, 4.0]}
SIDE = 20


def truth_file(**changes) -> dict:
    """A right file of two images; `changes` say how each annotation is made otherwise, from its number and itself."""
    file = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in (1, 2)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [],
    }
    for image in (1, 2):
        for category, name in ((7, "cat"), (9, "dog")):
            x, y, w, h = BOXES[name]
            one = {"id": len(file["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
            one |= {"bbox": BOXES[name], "area": w * h}
            one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            file["annotations"].append(one)
    for name, change in changes.items():
        for i, one in enumerate(file[name]):
            one.update(change(i, one))
            for key in [key for key, value in one.items() if value is ...]:
                del one[key]
    return file


def mask_of(x: float, y: float, w: float, h: float) -> RunLength:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
    return RunLength((SIDE, SIDE), coco.encode(mask)["counts"].decode())


@pytest.fixture
def judge(loaded, tmp_path):
    """Judge answers to such a file: by default every object is answered, in its place."""

    def make(file: dict, task: str = "detect", *, answers=BOXES, sizes=None):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(file))
        card = msgspec.structs.replace(loaded("yolov4_tiny").model.card, task=task, labels=("person", "cat", "dog"))
        dataset = read_coco(tmp_path, path, card)
        for example in dataset.examples:
            found = [
                Instance(i, name, 0.9, (x, y, x + w, y + h), 0.1, mask_of(x, y, w, h))
                if task == "segment"
                else Detection(i, name, 0.9, (x, y, x + w, y + h))
                for i, (name, (x, y, w, h)) in enumerate(answers.items(), start=1)
            ]
            size = ImageSize(*(sizes or {}).get(example.truth, (SIDE, SIDE)))
            dataset.judge.add(dataset.judge.compare(example, Result("m", "1", task, size, found)))
        scores = dataset.judge.scores()
        return {one.name: one.value for one in scores.measures}, scores, dataset

    return make


def runs(i, one) -> dict:
    return {"size": [SIDE, SIDE], "counts": mask_of(*one["bbox"]).counts}


def plain_runs(i, one) -> dict:
    """As pycocotools decodes it, uncompressed."""
    pixels = coco.decode(runs(i, one)).ravel("F")
    edges = np.flatnonzero(np.diff(pixels)) + 1
    return {"size": [SIDE, SIDE], "counts": np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()}


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
def test_perfect_answers_have_an_ap_of_one_whatever_the_file_leaves_open(judge, task, changes):
    measures, scores, dataset = judge(truth_file(**changes), task)
    assert {name: measures[name] for name in measures if name.endswith(("AP", "AR"))} == dict.fromkeys(
        ("AP", "AR") if task == "detect" else ("mask AP", "mask AR", "box AP", "box AR"), pytest.approx(1.0)
    )
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2), ("dog", 2)]
    assert len(dataset.examples) == 2


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_missing_answer_costs_what_it_should(judge, task):
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
def test_what_cannot_or_need_not_be_found_costs_nothing(judge, change, task, note):
    file = truth_file(annotations=lambda i, one: change if i % 2 else {})
    measures, scores, dataset = judge(file, task, answers={"cat": BOXES["cat"]})
    assert next(iter(measures.values())) == pytest.approx(1.0)
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2)]
    assert dataset.notes[1:] == ((f"2 {note}{dataset.notes[1].partition(note)[2]}",) if note else ())


def test_boxes_that_reach_out_of_their_images_are_told(judge):
    file = truth_file(annotations=lambda i, one: {"bbox": [15, 15, 25, 25] if i == 0 else one["bbox"]})
    assert "1 boxes reach out of their images: `bbox` is [x, y, width, height]" in judge(file)[2].notes[-1]


def test_categories_of_one_name_are_one_class(judge):
    file = truth_file()
    file["categories"].append({"id": 11, "name": "Cat"})
    file["annotations"][0]["category_id"] = 11
    measures, scores, _ = judge(file)
    assert measures["AP"] == pytest.approx(1.0)
    assert [(one.label, one.count) for one in scores.per_class] == [("cat", 2), ("dog", 2)]


def first(change: dict):
    return {"annotations": lambda i, one: change if i == 0 else {}}


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
        (first({"bbox": [1, 2, 3, 4, 5]}), "detect", r"is no COCO file of instances: .*length <= 4"),
        (first({"bbox": "1 2 3 4"}), "detect", "is no COCO file of instances: .*bbox"),
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
        (first({"segmentation": {"size": [20, 20], "counts": ""}}), "segment", "are no compressed run lengths"),
        (first({"segmentation": {"size": [20, 20], "counts": "zz"}}), "segment", "are no compressed run lengths"),
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
        ({"images": lambda i, one: {"file_name": 1}}, "detect", "is no COCO file of instances"),
    ],
)
def test_what_contradicts_itself_is_refused(judge, changes, task, message):
    with pytest.raises(DataError, match=message):
        judge(truth_file(**changes), task)


def test_a_byte_order_mark_is_no_fault(judge, tmp_path, loaded):
    judge(truth_file())
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(tmp_path, path, loaded("yolov4_tiny").model.card).examples) == 2


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_right_files_are_judged_as_pycocotools_judges_them(loaded, tmp_path, kind, seed):
    """Random truth, crowds among it, and random answers: every figure is that of pycocotools on the file itself."""
    random = np.random.default_rng(seed)
    names, side = ("person", "cat", "dog"), 200

    def box() -> list[float]:
        x, y, w, h = np.round(random.uniform((0, 0, 5, 5), (100, 100, 100, 100)), 1).tolist()
        return [x, y, w, h]

    def mask(box) -> dict:
        pixels = np.zeros((side, side), np.uint8, order="F")
        x, y, w, h = map(round, box)
        pixels[y : y + h, x : x + w] = 1
        return coco.encode(pixels)

    images = [
        {"id": int(i), "file_name": f"{i}.png", "width": side, "height": side} for i in random.permutation(50)[:6]
    ]
    annotations = []
    for number in range(60):
        place = box()
        one = {"id": number + 1, "image_id": images[number % 6]["id"], "category_id": int(random.integers(1, 4))}
        one |= {"bbox": place, "iscrowd": int(number % 9 == 0), "area": place[2] * place[3] * 0.8}
        x, y, w, h = place
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(one)
    path = tmp_path / "instances.json"
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    card = msgspec.structs.replace(
        loaded("yolov4_tiny").model.card, task="segment" if kind == "segm" else "detect", labels=names
    )
    dataset = read_coco(tmp_path, path, card)
    answers = []
    for example in dataset.examples:
        found = []
        for one in annotations:
            if one["image_id"] == example.truth and random.random() < 0.8:
                x, y, w, h = (max(0.0, side_ + float(random.normal(0, 2))) for side_ in one["bbox"])
                score, class_id = float(random.random()), int(random.choice([one["category_id"] - 1, 0]))
                rle = mask((x, y, w, h))
                runs = RunLength((side, side), rle["counts"].decode())
                place = (x, y, x + w, y + h)
                found.append(
                    Instance(class_id, names[class_id], score, place, 0.1, runs)
                    if kind == "segm"
                    else Detection(class_id, names[class_id], score, place)
                )
                own = {"image_id": example.truth, "category_id": class_id + 1, "score": score}
                answers.append(own | ({"segmentation": rle} if kind == "segm" else {"bbox": [x, y, w, h]}))
        result = Result("m", "1", card.task, ImageSize(side, side), found)
        dataset.judge.add(dataset.judge.compare(example, result))
    measures = {one.name.removeprefix("mask "): one.value for one in dataset.judge.scores().measures}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        plain = COCOeval(truth, truth.loadRes(answers), kind)
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    names = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR1", "AR10", "AR")
    wanted = dict(zip(names, plain.stats[:9], strict=True))
    assert {name: measures[name] for name, value in wanted.items() if value >= 0} == pytest.approx(
        {name: value for name, value in wanted.items() if value >= 0}
    )
    assert 0 < measures["AP"] < 1


def test_masks_are_judged_beside_boxes(judge):
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


def test_nothing_found_is_no_ap(judge):
    assert judge(truth_file(), answers={})[0]["AP"] == 0.0


def test_sizes_may_be_missing_but_not_wrong(judge):
    with pytest.raises(DataError, match="of 20 x 20 pixels, the image has 20 x 40, turned as its EXIF says"):
        judge(truth_file(), sizes={2: (20, 40)})
