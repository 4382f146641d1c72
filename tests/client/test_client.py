"""Both clients ask a real server: every task, every form of an image, many at once, errors with their reasons."""

import io
import json

import msgspec
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from zooserve_client import Client, ImageError, Result, ZooserveError

from tests.conftest import serving


def test_boxes_scores_and_labels_equal_the_servers(client, server, photo):
    data = photo("coffee")
    raw = server.client.post("/v1/detect", content=data, params={"score_threshold": 0.3}).json()
    found = client(server.url).detect(data, score_threshold=0.3)
    assert found.to_dict() == raw
    assert (found.model, found.task, found.width, found.height) == ("yolov4_tiny", "detect", 600, 400)
    assert found.labels == ["cup", "dining table"]
    assert found.boxes.dtype == np.float32
    assert found.boxes.shape == (len(found), 4)
    assert found.boxes == pytest.approx(np.array([each["box"] for each in raw["predictions"]]), abs=0.01)
    assert found.scores.tolist() == pytest.approx([each["score"] for each in raw["predictions"]])
    assert found.class_ids.tolist() == [41, 60]
    assert len(found.request_id) == 32
    assert found.timing["total"] > found.timing["infer"] > 0


def test_every_kind_of_image_input_has_the_same_answer(client, server, photo, tmp_path):
    image = Image.open(io.BytesIO(photo("coffee"))).convert("RGB")
    path = tmp_path / "photo.png"
    image.save(path)
    asked = client(server.url)
    answers = [asked.classify(form, top_k=2) for form in (path, str(path), path.read_bytes(), image, np.asarray(image))]
    assert [answer.to_dict() for answer in answers] == [answers[0].to_dict()] * 5
    assert answers[0].labels[0] == "espresso"
    assert answers[0].boxes.shape == (2, 4)
    assert np.isnan(answers[0].boxes).all()


def test_masks_of_all_formats_are_decoded(server, photo):
    data = photo("coffee")
    with Client(server.url) as asked:
        forms = {form: asked.segment(data, model="u2netp", mask=form) for form in ("rle", "png", "polygon", "none")}
        many = asked.segment(data)
    mask = forms["rle"].mask(0)
    assert (mask.shape, mask.dtype) == ((400, 600), np.bool_)
    packed = dict(forms["rle"].predictions[0]["mask"])
    assert (mask == coco.decode(packed)).all()
    assert mask.mean() == pytest.approx(forms["rle"].areas[0], abs=0.01)
    assert (forms["png"].mask(0) == mask).all()
    assert (forms["png"].opacity(0) >= 128).sum() == mask.sum()
    assert (forms["polygon"].mask(0) != mask).mean() < 0.01
    with pytest.raises(ValueError, match="without a mask"):
        forms["none"].mask(0)
    with pytest.raises(ValueError, match='ask with mask="png"'):
        forms["rle"].opacity(0)
    assert many.masks.shape == (len(many), 400, 600)
    assert many.masks.sum(0).max() <= 1  # classes exclude one another
    assert np.isnan(many.scores).all()


def test_a_heat_map_is_decoded(server, photo):
    with Client(server.url) as asked:
        found = asked.classify(photo("chelsea"), localize=True, heatmap=True)
    assert found.heatmap().shape == (found.height, found.width)
    assert np.isfinite(found.boxes[0]).all()
    assert np.isnan(found.boxes[1:]).all()


def test_results_convert_to_supervision(server, photo):
    sv = pytest.importorskip("supervision")
    data = photo("coffee")
    with Client(server.url) as asked:
        objects, areas, nothing = (
            asked.detect(data),
            asked.segment(data, model="u2netp"),
            asked.detect(data, score_threshold=1),
        )
        classes, unmasked = asked.classify(data), asked.segment(data, mask="none")
    found = objects.to_supervision()
    assert isinstance(found, sv.Detections)
    assert (found.xyxy == objects.boxes).all()
    assert found.data["class_name"].tolist() == objects.labels
    assert sv.BoxAnnotator().annotate(np.zeros((400, 600, 3), np.uint8), found).any()
    salient = areas.to_supervision()
    mask = areas.mask(0)
    assert (salient.mask[0] == mask).all()
    x0, y0, x1, y1 = salient.xyxy[0].astype(int)
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert mask[y0].any()
    assert mask[:, x1 - 1].any()
    assert len(nothing.to_supervision()) == 0
    assert classes.to_supervision().class_id[0] == 967
    with pytest.raises(ValueError, match="without a mask"):
        unmasked.to_supervision()


def test_predict_many_keeps_the_order(client, server, photo, tmp_path):
    names = ["coffee", "chelsea", "astronaut", "rocket"]
    images = [*[photo(name) for name in names] * 10, b"not an image", tmp_path / "nowhere.jpg", photo("coffee")]
    outcomes = client(server.url).predict_many("classify", iter(images), concurrency=3, top_k=1)
    one = [client(server.url).classify(photo(name), top_k=1).labels for name in names]
    assert [outcome.labels for outcome in outcomes[:40]] == one * 10
    assert (outcomes[40].status, outcomes[40].reason) == (415, "not_an_image")
    assert isinstance(outcomes[41], ImageError)
    assert outcomes[42].labels == one[0]


def test_predict_folder_reports_its_progress(client, server, photo, tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.png").write_bytes(photo("coffee"))
    (tmp_path / "d.png").write_bytes(b"")
    seen = []
    outcomes = client(server.url).predict_folder(
        "detect", tmp_path, progress=lambda *at: seen.append(at), score_threshold=0.5
    )
    assert [path.name for path, _ in outcomes] == ["a.png", "b.png", "c.png", "d.png"]
    assert [outcome.labels for _, outcome in outcomes[:3]] == [["cup"]] * 3
    assert outcomes[3][1].reason == "undecodable"
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_predict_many_may_be_abandoned(server, photo):
    with Client(server.url) as asked:
        outcomes = asked.predict_many("classify", [photo("coffee")] * 500, top_k=1)
        assert isinstance(next(outcomes), Result)
        outcomes.close()


@pytest.mark.parametrize(
    ("how", "status", "reason", "says"),
    [
        ({"top_k": 0}, 422, "bad_option", "from 1 to 1000"),
        ({"model": "nothing"}, 404, "unknown_model", "nothing"),
        ({"priority": "urgent"}, 422, "bad_option", "high"),
    ],
)
def test_errors_have_reason_and_detail(client, server, photo, how, status, reason, says):
    with pytest.raises(ZooserveError, match=says) as refused:
        client(server.url).classify(photo("coffee"), **how)
    assert (refused.value.status, refused.value.reason) == (status, reason)
    assert says in refused.value.detail
    assert len(refused.value.request_id) == 32
    assert str(refused.value).startswith(f"{status} {reason}: ")


def test_models_and_readiness_are_returned(client, server):
    asked = client(server.url)
    assert asked.ready() is True
    assert {"name", "task", "state"} <= asked.models()[0].keys()
    assert asked.model("lenet5")["card"]["task"] == "classify"
    assert client("http://127.0.0.1:1", deadline=1).ready() is False


def test_annotate_returns_an_image(client, server, photo):
    how = {"score_threshold": 0.5, "priority": "low"}
    drawn = client(server.url).annotate("detect", photo("coffee"), format="jpeg", **how)
    assert Image.open(io.BytesIO(drawn)).size == (600, 400)


def test_numbers_of_concurrent_requests_below_1_are_refused(client, server, photo):
    for concurrency in (0, -1):
        with pytest.raises(ValueError, match=r"concurrency=|max_workers"):
            client(server.url).predict_many("classify", [photo("coffee")], concurrency=concurrency)


def test_no_deadline_and_names_with_marks_of_an_address(client, server, photo):
    asked = client(server.url, deadline=float("inf"))
    assert asked.classify(photo("coffee"), top_k=1).labels == ["espresso"]
    for ask in (lambda: asked.model("lenet5?x"), lambda: asked.model("lenet5#x")):
        with pytest.raises(ZooserveError, match="404 unknown_model"):
            ask()
    with pytest.raises(ZooserveError, match="404 unknown_model: There is no pipeline `pets\\?x`"):
        asked.pipeline("pets?x", photo("coffee"))


@pytest.fixture(scope="module")
def locked(models, tmp_path_factory):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "sesame"}
    with serving(tmp_path_factory.mktemp("locked") / "log", **settings) as server:
        server.wait(200)
        yield server


def test_the_key_is_an_argument_or_in_the_environment(client, locked, models, monkeypatch):
    digit = models / "lenet5/1/golden/digit_7.png"
    with pytest.raises(ZooserveError, match="401 unauthorised"):
        client(locked.url).classify(digit, model="lenet5")
    assert client(locked.url, api_key="sesame").classify(digit, model="lenet5").labels[0] == "7"
    monkeypatch.setenv("ZOOSERVE_API_KEY", "sesame\n")  # as a file holds it
    monkeypatch.setenv("ZOOSERVE_URL", locked.url + "/")
    assert client().classify(digit, model="lenet5").labels[0] == "7"


def test_keys_of_other_letters_are_sent_and_control_characters_are_refused(client, models, tmp_path):
    digit = models / "lenet5/1/golden/digit_7.png"
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "schlüssel"}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        assert client(server.url, api_key="schlüssel").classify(digit).labels[0] == "7"
        with pytest.raises(ValueError, match="control character") as refused:
            client(server.url, api_key="sesame\nsesame").models()
        assert "sesame" not in str(refused.value)


def test_to_dict_is_readable_as_the_servers_result(server, photo):
    from service.results import Detection

    with Client(server.url) as asked:
        found = json.dumps(asked.detect(photo("coffee")).to_dict()["predictions"])
    assert msgspec.json.decode(found, type=list[Detection])[0].label == "cup"


def test_a_pipeline_has_the_second_models_answers(client, server, photo):
    data, asked = photo("chelsea"), client(server.url)
    raw = server.client.post("/v1/pipelines/pets", content=data, params={"top_k": 2}).json()
    found = asked.pipeline("pets", data, top_k=2)
    assert found.to_dict() == raw
    assert (found.pipeline, found.task, found.labels) == ("pets", "detect", ["cat"])
    (second,) = found.second
    assert (second.model, second.task, second.labels[0]) == ("mobilenet_v2", "classify", "Egyptian cat")
    left, top, right, bottom = found.predictions[0]["crop"]
    assert (second.width, second.height) == (right - left, bottom - top)
    assert Image.open(io.BytesIO(asked.annotate_pipeline("pets", data))).size == (451, 300)
    assert {each["name"]: each["ready"] for each in asked.pipelines()} == {"objects": True, "pets": True}
    with pytest.raises(ZooserveError, match="There is no pipeline `nothing`"):
        asked.pipeline("nothing", data)
