"""The page in a real Chromium: what is dropped is drawn, what is moved acts, what is wrong is said."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image

from tests.conftest import ROOT, serving
from tests.service.http.ui.chromium import answered, drop

COFFEE = ROOT / "docs" / "coffee.jpg"


def ask(server, task: str, photo: Path, **query) -> dict:
    return server.client.post(f"/v1/{task}", params=query, content=photo.read_bytes()).json()


def pixels(page, points: list[tuple[float, ...]], size: dict) -> list[list[int]]:
    """RGB of the canvas at points (x, y) in pixels of the image; (x, y, 1, 0) is just right of it, and so on."""
    return page.evaluate(
        """([points, size]) => {
            const canvas = document.getElementById("canvas"), {width, height} = canvas;
            const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
            context.drawImage(canvas, 0, 0);
            return points.map(([x, y, right = 0, down = 0]) => [...context.getImageData(
                Math.floor(x * width / size.width + 1.25 * right),
                Math.floor(y * height / size.height + 1.25 * down), 1, 1).data].slice(0, 3));
        }""",
        [points, size],
    )


def colour_of(page, prediction: dict, index: int) -> list[int]:
    return page.evaluate(
        "([p, i]) => import('./palette.js').then(m => m.channels(m.colourOf(p, i)))", [prediction, index]
    )


def near(one, other, by=40) -> bool:
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def slide(page, name: str, value: float) -> None:
    page.locator(f"#option-{name}").fill(str(value))


@pytest.fixture
def variants(tmp_path):
    """The same photo as it is, larger than any screen, and on its side with an orientation that says so."""

    def make(kind: str) -> Path:
        if kind == "as it is":
            return COFFEE
        image = Image.open(COFFEE)
        path = tmp_path / "photo.jpg"
        if kind == "large":
            image.resize((4200, 2800)).save(path, quality=90)
        else:
            exif = Image.Exif()
            exif[0x0112] = 6
            image.rotate(90, expand=True).save(path, quality=95, exif=exif)
        return path

    return make


@pytest.mark.parametrize(
    ("kind", "how"), [("as it is", "drop"), ("as it is", "paste"), ("large", "drop"), ("rotated", "drop")]
)
def test_the_boxes_of_a_dropped_image_are_on_the_canvas(open_page, server, variants, kind, how):
    photo = variants(kind)
    page = open_page("#yolov4_tiny")
    answered(page)
    drop(page, photo, how=how)
    answered(page, photo.name)
    result = ask(server, "detect", photo)
    size, found = result["image"], result["predictions"]
    assert [p["label"] for p in found] == ["cup", "dining table"]
    for index, prediction in enumerate(found):
        colour = colour_of(page, prediction, index)
        x0, y0, x1, y1 = prediction["box"]
        edges = [(x, y0 + (y1 - y0) * t, side, 0) for x, side in ((x0, 1), (x1, -1)) for t in (0.3, 0.6)]
        edges += [(x0 + (x1 - x0) * t, y1, 0, -1) for t in (0.3, 0.6)]
        drawn = pixels(page, edges, size)
        # boxes may cross: of six points one may be another's
        assert sum(near(pixel, colour) for pixel in drawn) >= 5, (prediction["label"], colour, drawn)
        assert not near(*pixels(page, [((x0 + x1) / 2, (y0 + y1) / 2)], size), colour)
    texts = page.locator("#predictions li .label").all_inner_texts()
    assert texts == ["cup", "dining table"]
    shown = page.evaluate("[canvas.clientWidth / canvas.clientHeight, drop.scrollWidth <= drop.clientWidth]")
    assert shown == [pytest.approx(size["width"] / size["height"], rel=0.01), True]


def test_the_score_slider_acts_at_once_and_asks_again_for_less(open_page, server):
    page = open_page("#yolov4_tiny")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    size = {"width": 600, "height": 400}
    table = ask(server, "detect", COFFEE)["predictions"][1]
    edge = (table["box"][0], 300, 1, 0)
    assert near(*pixels(page, [edge], size), colour_of(page, table, 1))

    page.route("**/v1/detect*", lambda route: None)  # the server is silent: what follows is the page's own doing
    slide(page, "score_threshold", 0.5)
    assert page.locator("#predictions li .label").all_inner_texts() == ["cup"]
    assert not near(*pixels(page, [edge], size), colour_of(page, table, 1))
    page.unroute("**/v1/detect*")

    with page.expect_response(lambda r: "score_threshold=0.05" in r.url):
        slide(page, "score_threshold", 0.05)
    answered(page)
    expected = [p["label"] for p in ask(server, "detect", COFFEE, score_threshold=0.05)["predictions"]]
    assert len(expected) > 2
    page.wait_for_function("n => predictions.children.length === n", arg=len(expected))
    assert page.locator("#predictions li .label").all_inner_texts() == expected


@pytest.mark.parametrize(("option", "value"), [("iou_threshold", 0.95), ("max_detections", 1)])
def test_the_other_sliders_ask_again(open_page, server, option, value):
    page = open_page("#yolov4_tiny")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    with page.expect_response(lambda r: f"{option}={value}" in r.url):
        slide(page, option, value)
    expected = ask(server, "detect", COFFEE, **{option: value})["predictions"]
    assert len(expected) != 2
    page.wait_for_function("n => predictions.children.length === n", arg=len(expected))
    assert page.locator("#count").inner_text() == str(len(expected))


@pytest.mark.parametrize("form", ["rle", "png", "polygon"])
def test_masks_of_every_form_are_drawn_where_they_are(open_page, server, models, form):
    from pycocotools import mask as coco

    photo = models / "deeplabv3_mobilenet_v2" / "1" / "golden" / "chelsea.png"
    page = open_page("#deeplabv3_mobilenet_v2")
    drop(page, photo)
    answered(page, photo.name)
    with page.expect_response(lambda r: "mask=none" in r.url):
        page.locator("#option-mask").select_option("none")
    answered(page)
    result = ask(server, "segment", photo, model="deeplabv3_mobilenet_v2")
    mask, size = coco.decode(result["predictions"][0]["mask"]), result["image"]
    inside, outside = [(120, 60), (250, 60), (60, 250)], [(440, 20), (430, 180), (445, 290)]
    assert [int(mask[y, x]) for x, y in inside + outside] == [1, 1, 1, 0, 0, 0]
    before = pixels(page, inside + outside, size)

    with page.expect_response(lambda r: f"mask={form}" in r.url):
        page.locator("#option-mask").select_option(form)
    answered(page)
    slide(page, "opacity", 1)
    after = pixels(page, inside + outside, size)
    colour = colour_of(page, result["predictions"][0], 0)
    assert all(near(pixel, colour, 4) for pixel in after[:3])
    assert after[3:] == before[3:]
    slide(page, "opacity", 0)
    assert pixels(page, inside, size) == before[:3]


def test_a_salient_object_keeps_its_soft_edge(open_page, models):
    page = open_page("#u2netp")
    drop(page, models / "u2netp" / "1" / "golden" / "astronaut.png")
    answered(page, "astronaut")
    assert page.locator("#option-mask").input_value() == "png"
    before = pixels(page, [(256, 300), (500, 60)], {"width": 512, "height": 512})
    slide(page, "opacity", 1)
    after = pixels(page, [(256, 300), (500, 60)], {"width": 512, "height": 512})
    assert before[0] != after[0]
    assert near(before[1], after[1], 8)


def test_a_model_that_comes_while_the_page_is_open_is_asked(open_page, models, tmp_path):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "u2netp,lenet5", "ZOOSERVE_ADMIN_KEYS": "admin"}
    with serving(tmp_path / "log", **settings) as own:
        own.wait(200)
        admin = {"Authorization": "Bearer admin"}
        own.client.post("/v1/models/u2netp/unload", headers=admin).raise_for_status()
        page = open_page("#u2netp", url=own.url)
        page.wait_for_function("() => document.querySelectorAll('#strip button').length === 4")
        page.locator("#error").wait_for()
        assert page.locator("#error").inner_text().startswith("u2netp is not served: it was unloaded")
        assert "unloaded" in page.locator("#models label", has_text="u2netp").inner_text()
        own.client.post("/v1/models/u2netp/load", headers=admin).raise_for_status()
        page.wait_for_function("() => document.querySelectorAll('#strip button').length === 6")
        page.locator("#strip [title='astronaut.png']").click()
        answered(page, "astronaut.png")
        assert page.locator("#predictions li .label").all_inner_texts() == ["salient object"]
        assert page.locator("#error").is_hidden()


def test_an_image_may_come_before_the_models(open_page):
    page = open_page("#mobilenet_v2")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    assert page.locator("#predictions li .label").first.inner_text() == "espresso"
    assert page.evaluate("location.hash") == "#mobilenet_v2"


def test_a_classifier_draws_bars_and_where_it_looked(open_page, server):
    page = open_page("#mobilenet_v2")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    top = ask(server, "classify", COFFEE, model="mobilenet_v2", localize=True, heatmap=True)["predictions"]
    size = {"width": 600, "height": 400}
    assert page.locator("#predictions li .label").all_inner_texts() == [p["label"] for p in top]
    bars = page.evaluate(
        """colour => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) count += colour.every((c, k) => Math.abs(c - data[i + k]) < 3);
            return count;
        }""",
        colour_of(page, top[0], 0),
    )
    assert bars > 300  # 3 pixels high, and as long as 97 % of a bar
    x0, y0, x1, _ = top[0]["box"]
    edge = [((x0 + x1) / 2, y0, 0, 1)]
    plain = pixels(page, edge, size)
    with page.expect_response(lambda r: "heatmap=true" in r.url):
        page.locator("#option-heatmap").check()
    page.wait_for_function("() => document.querySelector('#predictions li').title.startsWith('Box')")
    assert near(*pixels(page, edge, size), colour_of(page, top[0], 0))
    assert pixels(page, edge, size) != plain
    page.locator("#models input[value=lenet5]").check(force=True)
    answered(page)
    assert page.locator("#option-heatmap").count() == 0  # its network cannot say


def test_an_error_is_said_in_the_servers_words(open_page, server, tmp_path):
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


def test_what_is_no_file_is_refused(open_page):
    page = open_page()
    answered(page)
    drop(page)
    assert "no file" in page.locator("#error").inner_text()


def test_a_server_that_is_gone_is_told(open_page):
    page = open_page("#yolov4_tiny", expect=["ERR_FAILED"])
    answered(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.keyboard.press("ArrowRight")
    page.locator("#error").wait_for()
    assert page.locator("#error").inner_text() == "The server cannot be reached. Is it still running?"


def test_a_newer_question_cancels_the_one_under_way(open_page):
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


def test_several_images_stand_in_a_row(open_page, models):
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


def test_the_camera_is_asked_about_frame_by_frame(open_page):
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


def test_times_are_those_of_the_server(open_page):
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
def test_the_lines_to_copy_are_exactly_this_request(open_page, server, tmp_path, own, language):
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


def test_everything_works_with_the_keyboard(open_page):
    page = open_page("#yolov4_tiny")
    answered(page)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const e = document.activeElement;
                const s = getComputedStyle(e.matches("#models input") ? e.parentElement : e);
                const visible = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
                return [e.id || e.name || e.className || e.tagName, visible];
            }"""
        )
        if focused[0] == "BODY":
            break
        reached.append(focused)
    names = [name for name, _ in reached]
    wanted = ["skip", "tab-try", "help-open", "model", "option-score_threshold", "option-iou_threshold"]
    wanted += ["option-max_detections", "hide", "save", "camera", "open", "thumbnail", "tab-curl", "copy", "code"]
    assert set(wanted) <= set(names), names
    assert [name for name, visible in reached if not visible] == []

    page.keyboard.press("j")
    page.wait_for_function("() => location.hash === '#deeplabv3_mobilenet_v2'")
    answered(page)
    page.keyboard.press("k")
    page.wait_for_function("() => location.hash === '#yolov4_tiny'")
    page.locator("#models input:checked").focus()
    page.keyboard.press("ArrowUp")  # as in any group of radio buttons
    page.wait_for_function("() => location.hash === '#mobilenet_v2'")
    answered(page)
    first = page.locator("#name").inner_text()
    page.locator("#predictions li").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => !document.getElementById('name').textContent.startsWith(name)", arg=first[:5])
    page.keyboard.press("h")
    assert page.locator("#hide").get_attribute("aria-pressed") == "true"
    page.keyboard.press("?")
    assert page.locator("#shortcuts dt").count() >= 12
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("l")
    assert page.locator("#page-live").is_visible()
    page.keyboard.press("t")
    assert page.locator("#page-try").is_visible()
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    assert Image.open(BytesIO(Path(waiting.value.path()).read_bytes())).format == "PNG"


def test_an_answer_is_told_to_those_who_hear_it(open_page, server):
    page = open_page("#yolov4_tiny")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    assert page.locator("#say").text_content() == "cup 90 %, dining table 35 %."
    assert page.locator("#canvas").get_attribute("aria-label") == "coffee.jpg. cup 90 %, dining table 35 %."
    tree = page.locator("body").aria_snapshot()
    for part in (
        'tab "Try" [selected]',
        'radio "yolov4_tiny default" [checked]',
        'slider "Score at least"',
        'img "coffee.jpg.',
    ):
        assert part in tree, tree


def test_live_shows_what_the_metrics_say(open_page, server):
    page = open_page("#live")
    page.wait_for_function("() => document.querySelectorAll('#live-table tbody tr').length === 6")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "hash_"), [(360, "#yolov4_tiny"), (360, "#live"), (768, "#mobilenet_v2"), (1280, "#u2netp")]
)
def test_every_width_fits_and_all_text_has_contrast(open_page, scheme, width, hash_):
    page = open_page(hash_, width=width, height=800, color_scheme=scheme, reduced_motion="reduce")
    if hash_ == "#live":
        page.wait_for_function("() => document.querySelectorAll('#live-table tbody tr').length === 6")
    else:
        answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("(Number(getComputedStyle(busy, '::before').animationDuration.replace('s', '')) || 0)") <= 0.9
    poor = page.evaluate(CONTRAST)
    assert poor == []


# WCAG 2.2, 1.4.3: 4.5 to 1. Backgrounds are looked for upwards.
CONTRAST = """() => {
    const rgba = colour => {
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = e => {
        for (; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
    };
    const poor = [];
    let count = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; node = walker.nextNode();) {
        const e = node.parentElement, text = node.textContent.trim();
        if (!text || !e.checkVisibility() || e.closest(".hidden, .skip, option")) continue;
        count++;
        const [low, high] = [rgba(getComputedStyle(e).color), ground(e)].map(luminance).sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < 4.5) poor.push([text, contrast]);
    }
    return count > 30 ? poor : [`only ${count} texts`];
}"""


def test_a_server_with_keys_is_asked_with_one(open_page, models, tmp_path):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "secret"}
    with serving(tmp_path / "log", **settings) as locked:
        locked.wait(200)
        page = open_page(url=locked.url, expect=["status of 401"])
        page.locator("#key-dialog").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("#key-dialog").is_visible()
        page.locator("#key").fill("wrong")
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
        assert "$ZOOSERVE_KEY" in lines
        assert "secret" not in page.content()
        environment = os.environ | {"ZOOSERVE_KEY": "secret", "no_proxy": "*"}
        curl = subprocess.check_output(["sh", "-c", lines], env=environment)
        page.locator("#tab-python").click()
        python = subprocess.check_output([sys.executable, "-c", page.locator("#code").inner_text()], env=environment)
        assert json.loads(curl)["predictions"][0]["label"] == eval(python)["predictions"][0]["label"]
        page.locator("#forget").click()
        page.locator("#key-dialog").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
