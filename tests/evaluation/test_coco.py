"""AP of real answers: 1 where the truth is what the model answers, and less when the truth lies elsewhere."""

import json

import pytest
from PIL import Image

from evaluation.average_precision import options_of
from evaluation.coco import read_coco
from evaluation.dataset import DataError
from evaluation.run import judge_all

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
            for found in predictor.predict(path.read_bytes(), model, options_of(model.card)).predictions:
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


def test_the_models_own_answers_have_an_ap_of_one(street, loaded, truth):
    measures, scores, _ = judged(loaded, street, truth())
    assert [measures[name] for name in ("AP", "AP50", "AP75", "AR")] == pytest.approx([1.0] * 4)
    assert {"cup", "cat"} <= {one.label for one in scores.per_class}
    assert all(one.value == pytest.approx(1.0) and one.count >= 1 for one in scores.per_class)


@pytest.mark.parametrize(
    ("shift", "ap"),
    [(0.15, 0.5), (0.5, 0.0)],  # IoU (1 - s) / (1 + s): .739 passes 5 of the 10 thresholds, .333 none
)
def test_shifted_boxes_lower_the_ap(street, loaded, truth, shift, ap):
    measures, _, _ = judged(loaded, street, truth(shift))
    # A weak answer beside a sure one may lie better by chance.
    assert measures["AP"] == pytest.approx(ap, abs=0.05)
    assert measures["AP50"] > 0.9 if ap else measures["AP50"] < 0.2
    assert measures["AP75"] < 0.4


def test_categories_that_the_model_lacks_are_noted(street, loaded, truth):
    file = truth(rename=lambda label: "saucer" if label == "cup" else label)
    measures, _, dataset = judged(loaded, street, file)
    assert dataset.notes[-1] == "left out, since the model does not know them: saucer"
    assert measures["AP"] == pytest.approx(1.0)
    with pytest.raises(DataError, match=r"knows none of the .* categories"):
        judged(loaded, street, truth(rename="my {}".format))


def test_a_file_in_another_format_is_refused(street, loaded, tmp_path):
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"x\.json is not a COCO file of instances: .*categories"):
        read_coco(street, tmp_path / "x.json", loaded("yolov4_tiny").model.card)
