"""The page of models that answer images without a task, in a real Chromium: models and answers are made up here."""

import json
from urllib.parse import urlsplit

import pytest

from tests.service.http.ui.canvas import COFFEE

# The addresses of files that were made and not let go.
COUNT = """
    window.urls = new Set();
    const { createObjectURL, revokeObjectURL } = URL;
    URL.createObjectURL = (blob) => {
        const url = createObjectURL(blob);
        urls.add(url);
        return url;
    };
    URL.revokeObjectURL = (url) => {
        urls.delete(url);
        revokeObjectURL(url);
    };
"""
KEPT = """() => {
    const shown = [...document.querySelectorAll("img")].map((img) => img.src);
    return [...urls].filter((url) => !shown.includes(url)).length;
}"""


@pytest.fixture
def painters(open_page):
    """Open the page of a server with models of some outputs by name ("": its card cannot be had), and hold answers."""

    def start(outputs: dict[str, str], expect=()):
        asked = []
        listed = [{"name": name, "task": "tensors", "state": "ready", "version": "1"} for name in outputs]

        def card(route):
            name = urlsplit(route.request.url).path.rpartition("/")[2]
            made = {"name": name, "title": name, "recipe": {}, "inputs": [], "outputs": [{"name": outputs[name]}]}
            route.fulfill(status=200 if outputs[name] else 500, json={"card": made})

        def hold(route):
            asked.append(route)

        def prepare(page):
            page.add_init_script(COUNT)
            page.route("**/v1/models", lambda route: route.fulfill(json={"models": listed}))
            page.route("**/v1/models/*", card)
            page.route("**/infer", hold)

        page = open_page("#tensors", expect=expect, prepare=prepare)
        page.locator("#tab-tensors").wait_for()
        page.locator("#tensors-panel .thumbnail").first.wait_for()
        return page, asked

    return start


def choose(page, asked: list, name="photo.heic", kind="") -> None:
    """Choose a file, and wait until the model is asked about it."""
    before = len(asked)
    page.get_by_label("An image").evaluate(
        """(input, [name, type]) => {
            const data = new DataTransfer();
            data.items.add(new File(["an image"], name, { type }));
            input.files = data.files;
            input.dispatchEvent(new Event("change"));
        }""",
        [name, kind],
    )
    while len(asked) == before:
        page.wait_for_timeout(10)


def answer(route, number: float) -> None:
    outputs = [{"name": "angle", "shape": [1], "datatype": "FP32", "data": [number]}]
    route.fulfill(body=json.dumps({"outputs": outputs}), content_type="application/json")


def test_the_answer_shown_is_to_the_image_shown(painters):
    page, asked = painters({"steering": "angle"})
    choose(page, asked)
    answer(asked[0], 1)
    page.get_by_text("angle: 1.000").wait_for()
    choose(page, asked)
    assert page.get_by_text("angle:").count() == 0, "that was the image before"
    choose(page, asked)
    answer(asked[2], 3)
    page.get_by_text("angle: 3.000").wait_for()
    answer(asked[1], 2)
    page.wait_for_timeout(200)
    assert page.get_by_text("angle:").inner_text() == "angle: 3.000"


def test_files_that_are_no_longer_shown_are_let_go(painters):
    page, asked = painters({"style": "image", "steering": "angle"})
    for count in (1, 2, 3):
        choose(page, asked)
        asked[-1].fulfill(path=COFFEE, content_type="image/png")
        page.wait_for_function(
            "count => document.querySelector('[alt=after]')?.complete && urls.size > count", arg=count
        )
    page.wait_for_function(f"() => ({KEPT})() === 0")
    page.locator("#tensors-model").select_option("steering")
    page.locator("#tensors-panel .thumbnail").first.wait_for()
    page.locator("#tensors-model").select_option("style")  # before all samples have come
    page.wait_for_timeout(300)
    assert page.evaluate(KEPT) == 0


@pytest.mark.parametrize("output", ["image", "angle"])
@pytest.mark.parametrize(("kind", "sent"), [("", "image/unknown"), ("image/webp", "image/webp")])
def test_a_file_of_a_type_that_the_browser_does_not_know_is_sent_as_an_image(painters, output, kind, sent):
    page, asked = painters({"model": output})
    choose(page, asked, kind=kind)
    assert asked[0].request.headers["content-type"] == sent


def test_a_model_whose_card_cannot_be_had_is_left_out(painters):
    page, _ = painters({"broken": "", "steering": "angle"}, expect=["status of 500"])
    assert page.locator("#tensors-model option").all_inner_texts() == ["steering"]
    page.locator("#strip button").first.wait_for(state="attached")
    assert page.locator("#server").inner_text() == "2 of 2 ready"


def test_what_is_wrong_with_a_model_that_is_no_longer_shown_is_not_said(painters):
    page, asked = painters({"steering": "angle", "other": "angle"}, expect=["status of 500"])
    choose(page, asked)
    page.locator("#tensors-model").select_option("other")
    page.locator("#tensors-panel .thumbnail").nth(3).wait_for()
    with page.expect_response("**/infer"):
        asked[0].fulfill(status=500, json={"error": "The engine failed."})
    page.wait_for_timeout(200)
    assert page.locator("#tensors-error").is_hidden()
