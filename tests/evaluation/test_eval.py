"""`zooserve eval` on real models, images and datasets."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from evaluation.attack import load_attack
from evaluation.dataset import ClassScore, Confusion, DataError, Measure, Scores, spread
from evaluation.draw_scores import draw_scores
from zoo.cli import main


@pytest.fixture
def run(models):
    def run(*arguments: object, code: int = 0):
        done = CliRunner().invoke(main, ["eval", *map(str, arguments), "--models", str(models)])
        assert done.exit_code == code, done.output
        return done

    return run


def not_blank(path) -> bool:
    image = Image.open(path).convert("RGB")
    return min(image.size) > 150 and len(image.getcolors(1 << 24)) > 20


def test_mnist_as_json_and_as_an_image(run, tmp_path):
    done = run("lenet5", "mnist", "--limit", 300, "--json", "--picture", tmp_path / "a.png")
    report = json.loads(done.stdout)
    assert (report["format"], report["pictures"], report["pixels"]) == ("zoo", 300, "fast")
    top1, top5 = report["scores"]["measures"]
    assert top1["name"] == "top-1"
    assert 0.97 < top1["low"] < top1["value"] <= top1["high"] <= top5["high"] <= 1
    assert [one["label"] for one in report["scores"]["per_class"]] == list("0123456789")
    assert sum(one["count"] for one in report["scores"]["per_class"]) == 300
    assert not_blank(tmp_path / "a.png")


def test_a_folder_per_class_with_a_broken_image(run, imagenet):
    folder = imagenet(imagenet_00_243="n02108422", imagenet_13_471="Cannon", imagenet_19_305="305")
    (folder / "305" / "broken.jpg").write_bytes((folder / "305" / "imagenet_19_305.jpg").read_bytes()[:300])
    (folder / "305" / "notes.md").write_text("not an image")
    report = json.loads(run("mobilenet_v2", folder, "--json").stdout)
    assert report["pictures"] == 3
    assert [one["value"] for one in report["scores"]["measures"]] == [1.0, 1.0]
    (problem,) = report["unreadable"]
    assert problem["name"] == "305/broken.jpg"
    assert "cut off or corrupt" in problem["problem"]
    shown = run("mobilenet_v2", folder).stdout
    assert "top-1    100.00 %" in shown
    assert "not judged: 305/broken.jpg: The JPEG is cut off or corrupt" in shown


def test_names_with_brackets_are_printed_as_they_are(run, imagenet):
    """rich would take them for markup: `[a]` for a style, `[/b]` for the end of one that has not begun."""
    folder = imagenet(imagenet_00_243="n02108422")
    (folder / "n02108422" / "broken [b].jpg").write_bytes(b"")
    (folder.parent / "x[").mkdir()
    odd = folder.rename(folder.parent / "x[" / "b]")
    shown = run("mobilenet_v2", odd).stdout
    assert f"mobilenet_v2 1 on {odd}, 1 image" in shown
    assert "not judged: n02108422/broken [b].jpg: " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilenet_v2", "DATA"], "1 name means none of the model's 1000 classes: 'felines'"),
        (["yolov4_tiny", "DATA"], r"yolov4_tiny (detect) cannot be judged on"),
        (["mobilenet_v2", "mnist"], "cannot be judged on mnist, whose classes are 0, 1, 2"),
        (["mobilenet_v2", "DATA/felines"], "holds photos of which nothing is known"),
        (["mobilenet_v2", "nowhere"], "nowhere does not exist, and is not a dataset of the zoo (mnist)"),
        (["mobilenet_v2", "DATA/felines", "--attack", "magic"], "no attack 'magic'; expected one of fgsm, pgd"),
        (["yolov4_tiny", "DATA", "--attack", "fgsm"], "yolov4_tiny has the task detect: only classifiers are attacked"),
        (["efficientnet", "DATA"], "efficientnet"),
    ],
)
def test_the_error_says_why_data_cannot_be_evaluated(run, imagenet, arguments, message):
    folder = imagenet(imagenet_00_243="felines")
    done = run(*(argument.replace("DATA", str(folder)) for argument in arguments), code=2 if "photos" in message else 1)
    assert message in " ".join(done.stderr.split())


def test_coco_annotations_that_are_numbered_from_0(run, street, loaded, tmp_path):
    model, predictor, _ = loaded("yolov4_tiny")
    images, annotations = [], []
    for i, path in enumerate(sorted(street.iterdir())):
        result = predictor.predict(path.read_bytes(), model, {"score_threshold": 0.5})
        size = {"width": result.image.width, "height": result.image.height}
        images.append({"id": f"{i}", "file_name": path.name} | size)
        for found in result.predictions:
            x0, y0, x1, y1 = found.box
            one = {"id": len(annotations), "image_id": i, "category_id": found.class_id}
            annotations.append(one | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    categories = [{"id": i, "name": name} for i, name in enumerate(model.card.labels)]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    report = json.loads(run("yolov4_tiny", street, "--annotations", file, "--json").stdout)
    assert report["pictures"] == 2
    assert report["scores"]["measures"][0] == {"name": "AP", "value": pytest.approx(1.0)}
    found = json.loads(run("yolov4_tiny", street, "--json").stdout)
    assert found["scores"] == report["scores"]
    assert found["notes"] == [f"instances of {file}, images in {street}", *report["notes"]]
    assert f"instances of {file}" in run("yolov4_tiny", street, "--format", "coco").stdout
    file.unlink()
    assert "name it with --annotations" in run("yolov4_tiny", street, "--format", "coco", code=1).stderr


def test_an_attack_on_the_models_own_answer(run, imagenet, tmp_path):
    folder = imagenet(imagenet_00_243="photos") / "photos"
    arguments = ("mobilenet_v2", folder, "--attack", "fgsm", "--epsilon", 0, "--epsilon", 2, "--json")
    report = json.loads(run(*arguments, "--picture", tmp_path / "a.png").stdout)
    assert [one["accuracy"]["value"] for one in report["robustness"]] == [1.0, 1.0, 0.0]
    (change,) = report["changes"]
    assert change["before"]["label"] == "bull mastiff" != change["after"]["label"]
    assert not_blank(tmp_path / "a.png")


def test_without_torch_an_attack_says_what_to_install(monkeypatch, loaded):
    def load(entry):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", load)
    with pytest.raises(DataError, match=r"fgsm needs gradients: this needs torch, .*: pip install -e '.*\[export\]'"):
        load_attack("fgsm", loaded("lenet5").model.card)


def test_a_limited_sample_is_spread_over_the_dataset():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 5) == range(3)


@pytest.mark.parametrize("classes", [3, 40])
def test_images_of_few_and_many_classes_and_of_none_confused(tmp_path, classes):
    labels = [f"a rather long class name {i}" for i in range(classes)]
    per_class = [ClassScore(label, 0.5, 2) for label in labels]
    confusions = [Confusion(label, labels[i // 2], 1 + i) for i, label in enumerate(labels)]
    for pairs in (confusions, confusions[:1], []):
        draw_scores(Scores([Measure("top-1", 0.5)], "accuracy", per_class, pairs), "title").save(tmp_path / "a.png")
        assert not_blank(tmp_path / "a.png")
