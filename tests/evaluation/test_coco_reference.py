"""AP and AR are those that pycocotools computes from the same file and answers."""

import contextlib
import io
import json

import msgspec
import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.coco import read_coco
from service.results import Detection, ImageSize, Instance, Result, RunLength


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_those_of_pycocotools(loaded, tmp_path, kind, seed):
    """Random annotations, some of them crowds, and random answers."""
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
