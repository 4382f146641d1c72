"""Poses and rotated boxes on the page's canvas, in a real Chromium."""

import numpy as np
import pytest

from tests.conftest import serving
from tests.service import figures
from tests.service.http.ui.canvas import colour_of, near, pixels
from tests.service.http.ui.chromium import answered, drop
from zoo.rotated import corners

SIZE = {"width": 128, "height": 96}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    figures.publish(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server") / "log", ZOOSERVE_MODELS=str(folder / "models")) as server:
        server.wait(200)
        yield server


@pytest.fixture
def asked(open_page, server, folder):
    """Open the page with a model and the black image: (page, predictions)."""

    def ask(model: str, task: str):
        page = open_page(f"#{model}", url=server.url)
        drop(page, folder / "black.png")
        answered(page, "black.png")
        answer = server.client.post(f"/v1/{task}", content=(folder / "black.png").read_bytes()).json()
        assert page.locator("#predictions li .label").all_inner_texts() == [p["label"] for p in answer["predictions"]]
        return page, answer["predictions"]

    return ask


def test_a_skeleton_is_drawn(asked):
    page, found = asked("walker", "pose")
    first, second = (colour_of(page, prediction, index) for index, prediction in enumerate(found[:2]))
    assert first != second
    head, line, unclear, other = pixels(page, [(20, 24), (40, 24), (60, 60), (110, 22)], SIZE)
    assert near(head, first)
    assert near(line, first)
    assert near(other, second)
    assert not near(unclear, first)


def test_a_rotated_box_is_drawn_and_pointed_at(asked):
    page, found = asked("decks", "obb")
    box = found[2]
    ends = corners(np.array(figures.IN_IMAGE))[2]
    sides = [tuple((one + other) / 2) for one, other in zip(ends, np.roll(ends, -1, 0), strict=True)]
    assert all(near(pixel, colour_of(page, box, 2)) for pixel in pixels(page, sides, SIZE))
    assert not near(*pixels(page, [tuple(box["center"])], SIZE), colour_of(page, box, 2))
    outside = (ends.min(0) + 2).tolist()  # within the box around it, but not in it
    for point, marked in ((box["center"], True), (outside, False)):
        page.evaluate(
            """([x, y]) => canvas.dispatchEvent(new PointerEvent("pointermove", {bubbles: true,
                clientX: canvas.getBoundingClientRect().left + x * canvas.clientWidth,
                clientY: canvas.getBoundingClientRect().top + y * canvas.clientHeight}))""",
            [point[0] / 128, point[1] / 96],
        )
        on = page.evaluate("[...document.querySelectorAll('#predictions li.on')].map(item => item.dataset.index)")
        assert on == (["2"] if marked else [])


def test_the_options_are_those_of_objects(asked):
    page, _ = asked("walker", "pose")
    with page.expect_response(lambda response: "score_threshold=0.7" in response.url):
        page.locator("#option-score_threshold").fill("0.7")
    answered(page)
    assert page.locator("#predictions li").count() == 1
