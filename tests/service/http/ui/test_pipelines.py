"""Pipelines on the page, in a real Chromium: they are chosen as models are, and boxes have their second labels."""

import json
import shutil
from urllib.parse import parse_qsl, urlsplit

from tests.service.http.ui.chromium import answered


def test_a_pipeline_is_chosen_and_its_boxes_have_second_labels(open_page, server, photo):
    page = open_page("#pets")
    answered(page)
    assert "pets" in page.locator("#models .group", has_text="Pipelines").inner_text()
    page.locator("#strip [title='chelsea.png']").click()
    answered(page, "chelsea.png")
    told = server.client.post("/v1/pipelines/pets", content=photo("chelsea")).json()["predictions"]
    (cat,) = told
    best, *others = cat["second"]["predictions"]
    labels = page.locator("#predictions li .label").all_inner_texts()
    assert labels == [f"cat: {best['label']}"] == ["cat: Egyptian cat"]
    assert others[0]["label"] in page.locator("#predictions li .second").inner_text()
    assert "yolov4_tiny" in page.locator("#facts").inner_text()
    assert "mobilenet_v2 to classify each" in page.locator("#facts").inner_text()
    code = page.locator("#code").inner_text()
    assert "/v1/pipelines/pets?" in code


def test_its_score_slider_asks_the_detector(open_page):
    page = open_page("#objects")
    answered(page)
    page.locator("#strip [title='coffee.png']").click()
    answered(page, "coffee.png")
    some = page.locator("#predictions li").count()
    assert some >= 2
    with page.expect_request(lambda request: "score_threshold=0.9" in request.url) as asked:
        page.locator("#option-score_threshold").evaluate(
            "(range) => { range.value = 0.9; range.dispatchEvent(new Event('input')); }"
        )
    address = urlsplit(asked.value.url)
    assert address.path == "/v1/pipelines/objects"
    assert dict(parse_qsl(address.query))["score_threshold"] == "0.9"
    page.wait_for_function("(count) => document.querySelectorAll('#predictions li').length < count", arg=some)


def test_options_begin_at_what_the_cards_say(open_page, models, tmp_path):
    """Else the page would be answered otherwise than whoever asks without options."""
    from tests.conftest import serving

    store = tmp_path / "models"
    for name in ("yolov4_tiny", "lenet5"):
        shutil.copytree(models / name, store / name)
    path = store / "yolov4_tiny" / "1" / "card.json"
    card = json.loads(path.read_text())
    card["nms_options"] |= {"score_threshold": 0.2, "iou_threshold": 0.7, "max_detections": 400}
    path.write_text(json.dumps(card))
    folder = store / "pipelines"
    folder.mkdir()
    detect = 'detect = { model = "yolov4_tiny", options = { score_threshold = 0.5 } }\n'
    second = 'second = { task = "classify", model = "lenet5" }\n'
    (folder / "mine.toml").write_text(f'name = "mine"\ntitle = "Mine"\n{detect}{second}')
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store)) as own:
        own.wait(200)
        for name, score in (("yolov4_tiny", "0.2"), ("mine", "0.5")):
            page = open_page(f"#{name}", url=own.url)
            answered(page)
            asked = page.locator("#code").inner_text()
            assert f"score_threshold={score}&" in asked
            assert "max_detections=400" in asked
            assert ("iou_threshold=0.7" in asked) == (name == "yolov4_tiny")  # the pipeline does not offer it


def test_what_keeps_a_pipeline_from_answering_is_said(open_page, models, tmp_path):
    from tests.conftest import serving

    for name in ("yolov4_tiny", "lenet5"):
        (tmp_path / name).symlink_to(models / name)
    folder = tmp_path / "pipelines"
    folder.mkdir()
    card = 'name = "mine"\ntitle = "Mine"\ndetect = { model = "yolov4_tiny" }\n'
    (folder / "mine.toml").write_text(card + 'second = { task = "segment", model = "lenet5" }\n')
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(tmp_path)) as own:
        own.wait(200)
        page = open_page("#mine", url=own.url)
        page.locator("#error").wait_for()
        said = page.locator("#error").inner_text()
        assert said.startswith(
            "mine is not served: The pipeline `mine` cannot answer: `lenet5` is a model for /v1/classify"
        )
