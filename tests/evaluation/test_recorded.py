"""A server's answers in LoadGen's log are judged like new ones, and logs that do not fit are refused."""

import json
from hashlib import sha256

import msgspec
import pytest
from click.testing import CliRunner
from PIL import Image

from evaluation.dataset import DataError
from evaluation.recorded import Recorded, read_recorded
from zoo.catalog import fetch_photos
from zoo.cli import main

OPTIONS = {
    "mobilenet_v2": {"top_k": 5},
    "yolov4_tiny": {"score_threshold": 0.001, "iou_threshold": 0.65, "max_detections": 100},
    "deeplabv3_mobilenet_v2": {"mask": "rle"},
}


@pytest.fixture
def log(loaded, tmp_path):
    """LoadGen's log of a model's answers to files."""

    def write(name, paths, options=None, **changes):
        model, predictor, _ = loaded(name)
        entries = []
        for number, path in enumerate(paths):
            image = path.read_bytes()
            answer = msgspec.to_builtins(predictor.predict(image, model, OPTIONS[name] | (options or {}))) | changes
            data = json.dumps({"image_sha256": sha256(image).hexdigest(), "answer": answer}).encode()
            entries.append({"seq_id": number, "qsl_idx": number, "data": data.hex().upper()})
        file = tmp_path / "mlperf_log_accuracy.json"
        file.write_text(json.dumps(entries))
        return file

    return write


@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_answers_are_read_back(name, street, loaded, log):
    model, predictor, _ = loaded(name)
    paths = sorted(street.iterdir())
    recorded = read_recorded(log(name, paths), model.card)
    assert len(recorded) == len(paths)
    for path in paths:
        assert recorded.knows(path.read_bytes())
        expected = predictor.predict(path.read_bytes(), model, OPTIONS[name])
        assert recorded.predict(path.read_bytes(), model, {}) == expected
    assert not recorded.knows(b"other")


def evaluate(models, *arguments):
    return CliRunner().invoke(main, ["eval", *map(str, arguments), "--models", str(models)])


def test_eval_scores_recorded_answers(imagenet, log, models):
    names = sorted(fetch_photos(progress=False))[:3]
    folder = imagenet(**dict.fromkeys(names, "281"))
    paths = sorted((folder / "281").iterdir())
    file = log("mobilenet_v2", paths[:2])
    with_log = json.loads(evaluate(models, "mobilenet_v2", folder, "--answers", file, "--json").stdout)
    assert with_log["pictures"] == 2
    assert with_log["pixels"] == "recorded"
    assert with_log["notes"][-1] == "answers of a server, to 2 of 3 images; the others are left out"
    paths[2].unlink()
    asked = json.loads(evaluate(models, "mobilenet_v2", folder, "--json").stdout)
    assert asked["scores"] == with_log["scores"]


def test_of_answers_with_one_class_there_is_no_top_5(imagenet, log, models):
    folder = imagenet(imagenet_00_243="n02108422")
    file = log("mobilenet_v2", [folder / "n02108422" / "imagenet_00_243.jpg"], {"top_k": 1})
    report = json.loads(evaluate(models, "mobilenet_v2", folder, "--answers", file, "--json").stdout)
    assert [one["name"] for one in report["scores"]["measures"]] == ["top-1"]


def test_answers_without_masks_are_not_judged_by_masks(street, log, models, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in street.iterdir():
        Image.new("P", Image.open(path).size).save(tmp_path / "masks" / path.name)
    file = log("deeplabv3_mobilenet_v2", sorted(street.iterdir()), {"mask": "none"})
    done = evaluate(models, "deeplabv3_mobilenet_v2", tmp_path, "--answers", file)
    assert "none of 2 images could be judged" in " ".join(done.output.split())
    assert "its recorded answer has no masks: ask with mask=rle" in " ".join(done.output.split())


def test_logs_that_do_not_fit_are_refused(street, log, models, loaded, tmp_path):
    paths = sorted(street.iterdir())
    card = loaded("mobilenet_v2").model.card
    with pytest.raises(DataError, match="answers of mobilenet_v2 7, not of mobilenet_v2 1"):
        read_recorded(log("mobilenet_v2", paths, version="7"), card)
    folder = tmp_path / "data" / "281"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(paths[0].read_bytes())
    file = log("mobilenet_v2", paths[1:])
    done = evaluate(models, "mobilenet_v2", folder.parent, "--answers", file)
    assert done.exit_code != 0
    assert "none to these 1 images" in str(done.exception or done.output) + done.output
    done = evaluate(models, "mobilenet_v2", folder.parent, "--answers", file, "--attack", "fgsm")
    assert done.exit_code == 2
    assert "one of the two" in done.output


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"data": "zz"}]', '[{"data": "7B7D"}]'])
def test_files_that_are_not_logs_are_refused(text, tmp_path):
    (tmp_path / "log").write_text(text)
    with pytest.raises(DataError):
        Recorded(tmp_path / "log")
