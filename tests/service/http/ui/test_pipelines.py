"""Pipelines on the page, in a real Chromium: they are chosen as models are, and boxes have their second labels."""

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
