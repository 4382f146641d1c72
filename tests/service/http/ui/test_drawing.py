"""Answers are drawn on the canvas where they are, in a real Chromium, and change as the sliders are moved."""

from pathlib import Path

import pytest
from PIL import Image

from tests.service.http.ui.canvas import COFFEE, ask, colour_of, near, pixels, slide
from tests.service.http.ui.chromium import answered, drop


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


def test_the_score_slider_filters_at_once_and_asks_again_for_lower_scores(open_page, server):
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
def test_the_other_sliders_send_a_new_request(open_page, server, option, value):
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
def test_masks_of_all_formats_are_drawn_at_their_position(open_page, server, models, form):
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


def test_a_classifiers_scores_and_heat_map_are_drawn(open_page, server):
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


def test_a_classifiers_features_are_shown_and_asked_for_in_the_code(open_page, server):
    page = open_page("#mobilenet_v2")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    with page.expect_response(lambda r: "/v1/embed?model=mobilenet_v2" in r.url):
        page.locator("#option-answer").select_option("features")
    page.locator("#predictions li", has_text="1280 numbers").wait_for()
    assert page.locator("#option-top_k").count() == 0
    with page.expect_response(lambda r: "normalize=true" in r.url):
        page.locator("#option-normalize").check()
    page.locator("#predictions li", has_text="1280 numbers, of length 1.000").wait_for()
    assert "/v1/embed?model=mobilenet_v2&normalize=true" in page.locator("#code").inner_text()
    with page.expect_response(lambda r: "/v1/classify" in r.url):
        page.locator("#option-answer").select_option("classes")
    page.locator("#predictions li", has_text="espresso").wait_for()
    assert page.locator("#option-top_k").count() == 1
