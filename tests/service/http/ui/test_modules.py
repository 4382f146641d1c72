"""The page's modules on their own, in the browser that runs them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco


@pytest.fixture(scope="module")
def call(browser, server):
    """Call a function of a module with values that JSON knows."""
    page = browser.new_page()
    page.goto(f"{server.url}/ui/icon.svg")  # any page of the origin: nothing else runs there

    def call(module: str, code: str, *values):
        return page.evaluate(f"values => import('./{module}.js').then(m => ({code})(m, ...values))", list(values))

    yield call
    page.close()


def counts_of(mask: np.ndarray) -> str:
    return coco.encode(np.asfortranarray(mask))["counts"].decode()


SIDES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.5, 0.97, 1.0]))
def test_run_lengths_of_pycocotools_are_decoded(call, height, width, seed, share):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    encoded = coco.encode(np.asfortranarray(mask))
    rle = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    found = call("rle", "(m, r) => [...m.decodeRle(r, r.size[1], r.size[0])]", rle)
    assert np.array_equal(np.reshape(found, (height, width)), 255 * mask)


@pytest.mark.parametrize("size", [(50, 20), (301, 133), (7, 300), (1, 1), (310, 190)])
def test_run_lengths_are_decoded_at_the_drawn_size(call, size):
    rows, columns = np.indices((200, 300))
    mask = ((rows - 100) ** 2 + (columns - 120) ** 2 < 80**2).astype(np.uint8)
    encoded = coco.encode(np.asfortranarray(mask))
    rle = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    width, height = size
    found = call("rle", "(m, r, w, h) => [...m.decodeRle(r, w, h)]", rle, width, height)
    y = ((np.arange(height) + 0.5) * 200 / height).astype(int)
    x = ((np.arange(width) + 0.5) * 300 / width).astype(int)
    assert np.array_equal(np.reshape(found, (height, width)), 255 * mask[y][:, x])


def test_runs_of_more_than_two_characters_are_decoded(call):
    mask = np.zeros((3000, 2000), np.uint8, order="F")
    mask[:, 900:1400] = 1
    encoded = coco.encode(mask)
    assert call("rle", "(m, c) => m.runLengths(c)", encoded["counts"].decode()) == [2_700_000, 1_500_000, 1_800_000]


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, [[1, 0], [2, 10], [4, 20]], 2.0),
        (0.5, [[1, 10], [2, 10]], 0.5),  # within the first bucket, which begins at 0
        (0.75, [[1, 0], [3, 8]], 2.5),
        (0.99, [[1, 99], [2, 100]], 1.0),
        (0.995, [[1, 99], [2, 100]], 1.5),
        (0.99, [[1, 5], ["Infinity", 10]], 1.0),  # beyond the last bound nobody knows
        (0.5, [[1, 0], ["Infinity", 0]], None),
        (0.5, [], None),
    ],
)
def test_percentiles_equal_those_of_prometheus(call, q, buckets, expected):
    found = call("metrics", "(m, q, b) => m.quantile(q, b.map(([le, n]) => [Number(le), n]))", q, buckets)
    assert found == (None if expected is None else pytest.approx(expected))


TEXT = """# HELP zooserve_requests_total Requests
# TYPE zooserve_requests_total counter
zooserve_requests_total{code="200",model="a",task="detect"} %d
zooserve_requests_total{code="429",model="a",task="detect"} 2.0
zooserve_requests_total{code="404",model="",task="detect"} 1.0
zooserve_request_seconds_bucket{le="0.01",model="a",task="detect"} 10.0
zooserve_request_seconds_bucket{le="0.1",model="a",task="detect"} %d
zooserve_request_seconds_bucket{le="+Inf",model="a",task="detect"} %d
zooserve_batch_size_bucket{le="1.0",model="a"} 3.0
zooserve_batch_size_bucket{le="2.0",model="a"} 4.0
zooserve_batch_size_count{model="a"} 4.0
zooserve_batch_size_sum{model="a"} 5.0
zooserve_queue_depth{model="a"} 7.0
zooserve_model_info{model="quo\\"te",sha256="f"} 1.0
process_cpu_seconds_total 12.5
"""


def test_rates_and_percentiles_are_computed_between_two_scrapes(call):
    look = """(m, one, other, name) => m.between(
        m.select(m.snapshot(one), name), m.select(m.snapshot(other), name), 2)"""
    found = call("metrics", look, TEXT % (10, 10, 10), TEXT % (30, 30, 30), "a")
    assert (found["rate"], found["errors"], found["depth"]) == (10, 0, 7)
    assert found["p50"] == pytest.approx(0.055)
    assert found["batch"] is None  # no run meanwhile
    started = call("metrics", look, "", TEXT % (30, 30, 30), "")
    assert (started["rate"], started["errors"], started["batch"]) == (16.5, 1.5, 1.25)
    assert started["sizes"] == [[1, 3], [2, 1]]
    again = call("metrics", look, TEXT % (30, 30, 30), TEXT % (10, 12, 12), "a")  # the server was started again
    assert again["rate"] == 5
    assert call("metrics", "(m, text) => m.parse(text).map(s => s.labels.model)", TEXT % (1, 1, 1))[-1] == 'quo"te'


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (4.9, 5), (51, 100), (100, 100), (101, 200)]
)
def test_chart_axes_end_at_round_numbers(call, value, top):
    assert call("chart", "(m, v) => m.ceiling(v)", value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("size", "room", "expected"),
    [
        ((600, 400), (300, 300), (300, 200)),
        ((400, 600), (300, 300), (200, 300)),
        ((28, 28), (600, 610), (588, 588)),  # tiny: every pixel equally large
        ((200, 100), (2000, 2000), (800, 400)),  # small: not stretched for ever
        ((9000, 1), (300, 300), (300, 1)),
    ],
)
def test_an_image_fits_its_space(call, size, room, expected):
    found = call("draw", "(m, s, r) => m.fit(s[0], s[1], {width: r[0], height: r[1]})", size, room)
    assert (found["width"], found["height"]) == expected


def test_names_are_quoted_for_the_shell_and_for_python(call):
    asked = {"url": "http://h/v1/detect?model=a", "type": "image/png", "image": {"name": """it's "$HOME".png"""}}
    assert """--data-binary @'it'\\''s "$HOME".png'""" in call("snippets", "(m, a) => m.curl(a)", asked)
    assert """open("it's \\"$HOME\\".png", "rb")""" in call("snippets", "(m, a) => m.requests(a)", asked)


def test_instances_are_drawn_with_box_and_mask_in_colours_of_their_own(call):
    masks = np.zeros((2, 60, 100), np.uint8)
    masks[0, 10:50, 10:40], masks[1, 10:50, 50:90] = 1, 1
    predictions = []
    for mask, x0, x1 in zip(masks, (5, 45), (42, 95), strict=True):
        counts = counts_of(mask)
        found = {"class_id": 3, "label": "x", "score": 0.9, "area": 0.2, "box": [x0, 5, x1, 55]}
        predictions.append(found | {"mask": {"size": [60, 100], "counts": counts}})
    result = {"task": "segment", "image": {"width": 100, "height": 60}, "predictions": predictions}
    points = [[25, 45], [70, 45], [6, 30], [46, 30], [43, 30]]  # two insides, two left edges, between the boxes
    code = """async (m, result, points) => {
        const palette = await import("./palette.js"), canvas = new OffscreenCanvas(100, 60);
        canvas.clientWidth = 100;
        const answer = {result, layers: await m.prepare(result)};
        globalThis.getComputedStyle = () => ({fontFamily: "sans-serif"});
        const view = {bitmap: null, answer, visible: [0, 1], opacity: 0.5, highlight: -1, hidden: false};
        m.draw(canvas, view);
        const pixel = ([x, y]) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
        return {
            pixels: points.map(pixel),
            colours: result.predictions.map((p, i) => palette.channels(palette.colourOf(p, i))),
            hits: [[0.25, 0.7], [0.7, 0.7], [0.06, 0.5], [0.43, 0.5]].map(([x, y]) => m.hit(answer, [0, 1], x, y)),
        };
    }"""
    found = call("draw", code, result, points)
    first, second = found["colours"]
    assert first != second
    for pixel, colour in zip(found["pixels"], (first, second, first, second), strict=False):
        assert pixel[:3] == pytest.approx(colour, abs=3)
    assert [pixel[3] for pixel in found["pixels"]] == [128, 128, 255, 255, 0]
    assert found["hits"] == [0, 1, -1, -1]  # what is in a box, but not in its mask, is not pointed at


@pytest.mark.parametrize(("image", "drawn"), [((100, 60), (100, 60)), ((200, 120), (100, 60)), ((100, 60), (3, 2))])
def test_masks_of_a_crop_are_where_it_was_cut(call, image, drawn):
    (width, height), (across, down) = image, drawn
    crop = [width // 2, height // 3, width, height]
    masks = np.zeros((2, crop[3] - crop[1], crop[2] - crop[0]), np.uint8)
    masks[0, :, : masks.shape[2] // 2], masks[1, : masks.shape[1] // 2] = 1, 1
    parts = [{"mask": {"size": list(mask.shape), "counts": counts_of(mask)}} for mask in masks]
    second = {"task": "segment", "image": {"width": masks.shape[2], "height": masks.shape[1]}, "predictions": parts}
    found = call(
        "masks",
        "async (m, each, image, size) => [...(await m.maskOf(each, image, ...size) ?? [])]",
        {"crop": crop, "second": second},
        {"width": width, "height": height},
        drawn,
    )
    whole = np.zeros((height, width), np.uint8)
    whole[crop[1] :, crop[0] :] = masks.max(0)
    if width % across == 0:
        step = width // across
        np.testing.assert_array_equal(np.reshape(found, (down, across)), 255 * whole[::step, ::step])
    assert len(found) == across * down
    assert set(found) <= {0, 255}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cup", "cup"),
        ("", "class 7"),
        (" \n\t", "class 7"),
        ("\u200b\u2060", "class 7"),
        ("two\r\nlines", "two lines"),
        ("杯子", "杯子"),
        ("طبق", "طبق"),
        ("👩‍🍳", "👩‍🍳"),
        ("evil\u202ename", "evil name"),
    ],
)
def test_a_name_is_one_line_and_never_empty(call, label, name):
    assert call("names", "(m, label) => m.nameOf({ label, class_id: 7 })", label) == name


@pytest.mark.parametrize(
    ("label", "room", "whole"), [("cup", 500, True), ("👩‍🍳" * 9999, 200, False), ("word " * 50, 80, False)]
)
def test_a_long_name_is_cut_and_not_squeezed(call, label, room, whole):
    code = """(m, label, room) => {
        const context = new OffscreenCanvas(9, 9).getContext("2d"), text = m.cut(context, label, room);
        return [text, context.measureText(text).width];
    }"""
    text, width = call("names", code, label, room)
    assert (text == label) == whole
    assert width <= room
    assert whole or text.endswith("…")
