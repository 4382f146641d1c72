"""The page, in a real Chromium, where bitmaps, answers and cameras come late or not at all."""

import pytest

from tests.service.http.ui.canvas import COFFEE, slide
from tests.service.http.ui.chromium import answered, drop

# What `window[name]` promises is held from now on; `release[name]` lets it go, and holds nothing more.
HOLD = """name => {
    const real = window[name], held = [];
    window[name] = async (...given) => {
        const value = await real(...given);
        await new Promise((done) => held.push(done));
        return value;
    };
    window.waiting = { ...window.waiting, [name]: held };
    window.release = { ...window.release, [name]: () => {
        window[name] = real;
        held.forEach((done) => done());
    } };
}"""


def held(page, name: str) -> None:
    page.wait_for_function("name => waiting[name].length", arg=name)


@pytest.mark.parametrize("late", ["the answer to the image before", "the image's own bitmap"])
def test_an_answer_is_drawn_over_its_own_image(open_page, late):
    page = open_page("#yolov4_tiny")
    answered(page)
    if late == "the answer to the image before":
        page.evaluate(HOLD, "fetch")
        page.keyboard.press("ArrowRight")
        held(page, "fetch")
    page.evaluate(HOLD, "createImageBitmap")
    drop(page, COFFEE)
    held(page, "createImageBitmap")
    if late == "the answer to the image before":
        page.evaluate("release.fetch()")
    else:
        with page.expect_response("**/v1/detect*"):
            slide(page, "score_threshold", 0.4)
    page.wait_for_timeout(200)
    assert page.locator("#name").inner_text() == COFFEE.name, "no answer is shown before its image"
    page.evaluate("release.createImageBitmap()")
    answered(page, COFFEE.name)


def test_an_image_chosen_during_a_frame_of_the_camera_is_the_one_shown(open_page):
    page = open_page("#yolov4_tiny", permissions=["camera"])
    answered(page)
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    page.evaluate(HOLD, "createImageBitmap")
    page.locator("#camera").click()
    held(page, "createImageBitmap")
    page.locator(f"#strip [title='{COFFEE.name}']").click()
    answered(page, COFFEE.name)
    page.evaluate("release.createImageBitmap()")
    page.wait_for_timeout(200)
    answered(page, COFFEE.name)
    shape = page.evaluate("(({ width, height }) => width / height)(document.getElementById('canvas'))")
    assert shape == pytest.approx(1.5, abs=0.02), "a frame of the camera is 4:3"


@pytest.mark.parametrize(("clicks", "running"), [(1, 1), (2, 0), (3, 1)])
def test_no_camera_runs_on_that_was_stopped_before_it_began(open_page, clicks, running):
    page = open_page("#lenet5", permissions=["camera"])
    answered(page)
    page.evaluate(
        """() => {
            const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
            window.tracks = [];
            window.openCamera = async (asked) => {
                const stream = await real(asked);
                tracks.push(...stream.getTracks());
                return stream;
            };
            media.getUserMedia = (asked) => openCamera(asked);
        }"""
    )
    page.evaluate(HOLD, "openCamera")
    for _ in range(clicks):
        page.locator("#camera").click()
    on = str(bool(running)).lower()
    assert page.locator("#camera").get_attribute("aria-pressed") == on
    page.wait_for_function("count => waiting.openCamera.length === count", arg=(clicks + 1) // 2)
    page.evaluate("release.openCamera()")
    page.wait_for_timeout(200)
    page.wait_for_function(
        """running => running === tracks.filter(({ readyState }) => readyState === "live").length
            && running === document.querySelectorAll("#strip [title='camera.jpg']").length""",
        arg=running,
    )
    assert page.locator("#camera").get_attribute("aria-pressed") == on
    assert page.locator("#error").is_hidden()


def test_a_model_whose_card_could_not_be_had_is_asked_for_again(open_page):
    def prepare(page):
        page.clock.install()
        page.route("**/v1/models/lenet5", lambda route: route.abort(), times=1)

    page = open_page("#lenet5", expect=["ERR_FAILED"], prepare=prepare)
    page.locator("#error").wait_for()
    page.locator("#strip button").first.wait_for()
    page.clock.fast_forward(3_000)
    answered(page)
    assert page.locator("#error").is_hidden()
    page.route("**/v1/models/mobilenet_v2", lambda route: route.abort(), times=1)
    page.locator("#models input[value=mobilenet_v2]").dispatch_event("click")
    page.locator("#error").wait_for()
    assert page.locator("#predictions li").count() == 0, "what the model before answered is gone"
    page.clock.fast_forward(15_000)
    page.wait_for_function("() => location.hash === '#mobilenet_v2'")
    answered(page)
    assert page.locator("#error").is_hidden()
    assert "model=mobilenet_v2" in page.locator("#code").inner_text()
