"""The page in a real Chromium: models, files, errors, the camera, times, code to copy, metrics and keys."""

import json
import os
import subprocess
import sys
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image

from tests.conftest import ROOT, serving
from tests.service.http.ui.canvas import COFFEE, ask, slide
from tests.service.http.ui.chromium import answered, drop


def test_a_model_loaded_while_the_page_is_open_is_used(open_page, models, tmp_path):
    settings = {
        "ZOOSERVE_MODELS": str(models),
        "ZOOSERVE_LOAD": "deeplabv3_mobilenet_v2,lenet5",
        "ZOOSERVE_ADMIN_KEYS": "admin",
    }
    with serving(tmp_path / "log", **settings) as own:
        own.wait(200)
        admin = {"Authorization": "Bearer admin"}
        own.client.post("/v1/models/deeplabv3_mobilenet_v2/unload", headers=admin).raise_for_status()
        page = open_page("#deeplabv3_mobilenet_v2", url=own.url)
        page.wait_for_function("() => document.querySelectorAll('#strip button').length === 4")
        page.locator("#error").wait_for()
        assert page.locator("#error").inner_text().startswith("deeplabv3_mobilenet_v2 is not served: it was unloaded")
        assert "unloaded" in page.locator("#models label", has_text="deeplabv3_mobilenet_v2").inner_text()
        own.client.post("/v1/models/deeplabv3_mobilenet_v2/load", headers=admin).raise_for_status()
        page.wait_for_function("() => document.querySelectorAll('#strip button').length === 6")
        page.locator("#strip [title='astronaut.png']").click()
        answered(page, "astronaut.png")
        assert page.locator("#predictions li .label").all_inner_texts()[0] == "person"
        assert page.locator("#error").is_hidden()


def test_an_image_may_be_chosen_before_the_models_are_listed(open_page):
    page = open_page("#mobilenet_v2")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    assert page.locator("#predictions li .label").first.inner_text() == "espresso"
    assert page.evaluate("location.hash") == "#mobilenet_v2"


def test_the_servers_error_message_is_shown(open_page, server, tmp_path):
    page = open_page("#yolov4_tiny", expect=["the server responded with a status of 4"])
    answered(page)
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    drop(page, text)
    page.locator("#error").wait_for()
    answer = server.client.post("/v1/detect", content=text.read_bytes(), headers={"Content-Type": "text/plain"})
    assert page.locator("#error").inner_text() == answer.json()["detail"]
    assert page.locator("#canvas").is_hidden()
    assert page.locator("#predictions li").count() == 0
    page.locator("#strip button").nth(1).click()  # the next image is none the worse
    answered(page)
    assert page.locator("#error").is_hidden()


def test_dropped_items_that_are_not_files_are_refused(open_page):
    page = open_page()
    answered(page)
    drop(page)
    assert "no file" in page.locator("#error").inner_text()


def test_an_unreachable_server_is_reported(open_page):
    page = open_page("#yolov4_tiny", expect=["ERR_FAILED"])
    answered(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.keyboard.press("ArrowRight")
    page.locator("#error").wait_for()
    assert page.locator("#error").inner_text() == "The server cannot be reached. Is it still running?"


def test_a_new_request_cancels_the_running_one(open_page):
    page = open_page("#yolov4_tiny")
    answered(page)
    held, failed = [], []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.route("**/v1/detect*", lambda route: held.append(route) if not held else route.continue_())
    names = [button.get_attribute("title") for button in page.locator("#strip button").all()]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => !document.getElementById('busy').hidden")
    page.wait_for_timeout(100)
    page.keyboard.press("ArrowRight")
    answered(page, names[2])
    assert len(held) == len(failed) == 1
    assert page.locator("#strip [aria-current=true]").get_attribute("title") == names[2]


def test_several_images_are_shown_in_a_row(open_page, models):
    page = open_page("#lenet5")
    answered(page)
    samples = page.locator("#strip button").count()
    drop(page, *sorted((models / "lenet5" / "1" / "golden").glob("*.png")))
    answered(page, "digit_0")
    assert page.locator("#strip button").count() == samples + 4
    seen = []
    for _ in range(4):
        answered(page, page.locator("#strip [aria-current=true]").get_attribute("title"))
        seen.append(page.locator("#predictions li .label").first.inner_text())
        page.keyboard.press("ArrowRight")
    assert seen == ["0", "2", "4", "7"]
    page.keyboard.press("x")
    assert page.locator("#strip button").count() == samples + 3


def test_camera_frames_are_sent_one_at_a_time(open_page):
    page = open_page("#lenet5", permissions=["camera"])
    answered(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/classify" in request.url else None)
    page.locator("#camera").click()
    answered(page, "camera.jpg")
    page.wait_for_function("() => document.querySelectorAll('#predictions li').length === 5")
    before = len(asked)
    page.wait_for_timeout(1500)
    assert len(asked) > before
    assert page.locator("#strip [title='camera.jpg']").count() == 1
    page.locator("#camera").click()
    page.wait_for_function("() => document.getElementById('camera').getAttribute('aria-pressed') === 'false'")
    assert not page.locator("#error").is_visible()


def test_the_times_of_server_timing_are_shown(open_page):
    page = open_page("#yolov4_tiny")
    answered(page)
    with page.expect_response(lambda r: "/v1/detect" in r.url) as waiting:
        drop(page, COFFEE)
    answered(page, COFFEE.name)
    header = waiting.value.headers["server-timing"]
    stages = dict(part.split(";dur=") for part in header.split(", "))
    legend = dict(
        zip(page.locator("#timing dt").all_inner_texts(), page.locator("#timing dd").all_inner_texts(), strict=True)
    )
    for name in ("read", "decode", "queue", "infer", "postprocess", "encode"):
        assert float(legend[name]) == pytest.approx(float(stages[name]), rel=0.06, abs=0.006)
    widths = page.evaluate("[...document.querySelectorAll('.stages i')].map(part => part.clientWidth)")
    assert widths.index(max(widths)) == ["read", "decode", "queue", "infer", "postprocess", "encode"].index(
        max((float(ms), name) for name, ms in stages.items() if name != "total")[1]
    )


@pytest.mark.parametrize("own", [True, False], ids=["a file", "a sample"])
@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_copied_command_makes_the_same_request(open_page, server, tmp_path, own, language):
    page = open_page("#yolov4_tiny", permissions=["clipboard-read", "clipboard-write"])
    answered(page)
    if own:
        photo = tmp_path / "a cup's photo.jpg"
        photo.write_bytes(COFFEE.read_bytes())
        drop(page, photo)
        answered(page, photo.name)
    with page.expect_request(lambda request: "score_threshold=0.4&" in request.url) as asking:
        slide(page, "score_threshold", 0.4)
    answered(page)
    page.locator("#tab-json").click()
    shown = json.loads(page.locator("#code").inner_text())
    page.locator(f"#tab-{language}").click()
    page.locator("#copy").click()
    lines = page.evaluate("navigator.clipboard.readText()")
    query = parse_qsl(urlsplit(asking.value.url).query)
    assert [name for name, _ in query] == ["model", "score_threshold", "iou_threshold", "max_detections"]
    for name, value in query:
        assert (f"{name}={value}" if language == "curl" else f'"{name}": "{value}"') in lines
    command = ["sh", "-c", lines] if language == "curl" else [sys.executable, "-c", lines]
    environment = os.environ | {"no_proxy": "*", "NO_PROXY": "*"}
    out = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    answer = json.loads(out) if language == "curl" else eval(out)
    assert answer == shown


def test_a_file_that_is_gone_is_named_and_not_the_server(open_page, tmp_path):
    photo = tmp_path / "gone.jpg"
    photo.write_bytes(COFFEE.read_bytes())
    page = open_page(expect=["ERR_FILE_NOT_FOUND"])
    answered(page)
    page.locator("#file").set_input_files(photo)
    answered(page, photo.name)
    photo.unlink()
    slide(page, "score_threshold", 0.4)
    page.locator("#error").wait_for()
    assert page.locator("#error").inner_text().startswith("The file cannot be read: it was moved or changed")


def test_small_objects_are_looked_for_in_tiles(open_page, server, tmp_path):
    image = Image.new("RGB", (1000, 600), (124, 130, 118))
    cup = Image.open(COFFEE).convert("RGB").resize((150, 100), Image.Resampling.LANCZOS)
    for place in ((30, 40), (320, 180), (800, 450)):
        image.paste(cup, place)
    photo = tmp_path / "table.jpg"
    image.save(photo, quality=95)
    page = open_page("#yolov4_tiny")
    answered(page)
    drop(page, photo)
    answered(page, photo.name)
    assert page.locator("#predictions li").count() < 3
    with page.expect_request(lambda request: "tiles=auto" in request.url):
        page.locator("#option-tiles").select_option("auto")
    answered(page, photo.name)
    found = ask(server, "detect", photo, model="yolov4_tiny", tiles="auto")["predictions"]
    page.wait_for_function("count => document.querySelectorAll('#predictions li').length === count", arg=len(found))
    labels = page.locator("#predictions li .label").all_inner_texts()
    assert labels == [each["label"] for each in found]
    assert labels.count("cup") >= 3
    with page.expect_request(lambda request: "/v1/detect" in request.url) as asking:
        page.locator("#option-tiles").select_option("off")
    assert "tiles" not in asking.value.url
    answered(page, photo.name)


def test_the_live_view_shows_the_metrics(open_page, server):
    page = open_page("#live")  # which has pipelines too, once they were asked
    page.wait_for_function("() => document.querySelectorAll('#live-table tbody tr').length >= 6")
    before = int(page.locator("#live-table tr", has_text="lenet5").locator("td").last.inner_text().replace(",", ""))
    digit = ROOT / "models" / "lenet5" / "1" / "golden" / "digit_7.png"
    for _ in range(20):
        ask(server, "classify", digit, model="lenet5")
    server.client.post("/v1/classify?model=lenet5&top_k=0", content=b"")
    row = page.locator("#live-table tr", has_text="lenet5").locator("td")
    page.wait_for_function(
        "n => [...document.querySelectorAll('#live-table tr')].some(r => r.textContent.includes('lenet5') "
        "&& r.lastElementChild.textContent.replace(',', '') === n)",
        arg=str(before + 20),
    )
    rate, errors, p50, p99, batch = (float(cell) for cell in row.all_inner_texts()[:5])
    assert rate > 0.5
    assert 0 < errors < rate
    assert 0 < p50 <= p99
    assert batch == 1
    page.locator("#live-model").select_option("lenet5")
    for title in ("Request rate", "Latency", "Batch size", "Queue depth"):
        tile = page.locator(".tile", has_text=title)
        assert "nothing yet" not in tile.locator("svg").get_attribute("aria-label")
        assert (
            tile.locator("path.line").first.get_attribute("d")
            if title != "Batch size"
            else tile.locator("rect").count()
        )


def test_the_page_sends_a_key_to_a_server_with_keys(open_page, models, tmp_path):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "secret,ключ zur Tür"}
    with serving(tmp_path / "log", **settings) as locked:
        locked.wait(200)
        page = open_page(url=locked.url, expect=["status of 401"])
        page.locator("#key-dialog").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("#key-dialog").is_visible()
        page.locator("#key").fill("wróng ключ")
        page.keyboard.press("Enter")
        page.locator("#key-error").wait_for()
        assert page.locator("#key-error").inner_text() == "This key is not known to the server."
        page.locator("#key").fill("secret")
        page.keyboard.press("Enter")
        answered(page)
        assert page.locator("#strip button").count() == 4
        stored = page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie, location.href]")
        assert stored == [["secret"], 0, "", f"{locked.url}/ui/#lenet5"]
        lines = page.locator("#code").inner_text()
        assert "$ZOOSERVE_API_KEY" in lines
        assert "secret" not in page.content()
        environment = os.environ | {"ZOOSERVE_API_KEY": "secret", "no_proxy": "*"}
        curl = subprocess.check_output(["sh", "-c", lines], env=environment)
        page.locator("#tab-python").click()
        python = subprocess.check_output([sys.executable, "-c", page.locator("#code").inner_text()], env=environment)
        assert json.loads(curl)["predictions"][0]["label"] == eval(python)["predictions"][0]["label"]
        page.locator("#forget").click()
        page.locator("#key-dialog").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        page.locator("#key").fill("ключ zur Tür")  # a key may be any text
        page.keyboard.press("Enter")
        answered(page)
