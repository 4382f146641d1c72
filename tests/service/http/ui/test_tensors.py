"""The page of models that take tensors, in a real Chromium: letters, a walk between latent vectors, images."""

import pytest
from PIL import Image

from export.training.roads import roads
from tests.conftest import ROOT


@pytest.fixture
def server(course):
    return course


@pytest.fixture
def opened(open_page, server):
    """Open the page of one model."""

    def start(name: str, **options):
        page = open_page("#tensors", url=server.url, **options)
        page.locator("#tab-tensors").wait_for()
        page.locator("#tensors-model").select_option(name)
        return page

    return start


def test_letters_are_guessed_as_one_types(opened):
    page = opened("char_lstm")
    asked = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    text = page.get_by_label("Text", exact=True)
    text.press_sequentially("HAMLET.\nTo th", delay=30)
    first = page.locator(".guesses button").first
    page.wait_for_function("() => document.querySelector('.guesses button span')?.textContent === 'e'")
    sent = "".join(chr(code) for body in asked for code in body["inputs"][0]["data"])
    assert sent == "HAMLET.\nTo th", "each letter is sent once: the state is kept"
    assert not any(asked[0]["inputs"][1]["data"])
    assert any(asked[-1]["inputs"][1]["data"])
    first.click()
    page.wait_for_function("() => document.querySelector('.letters textarea').value === 'HAMLET.\\nTo the'")
    text.fill("")
    page.wait_for_function("() => !document.querySelector('.guesses button')")
    text.fill("q")  # from the beginning again
    page.locator(".guesses button").first.wait_for()
    assert not any(asked[-1]["inputs"][1]["data"])


def test_what_is_wrong_is_shown(opened):
    page = opened("char_lstm", expect=["the server responded with a status of 400"])
    page.route("**/infer", lambda route: route.fulfill(status=400, json={"error": "The queue is full."}))
    page.get_by_label("Text", exact=True).fill("a")
    page.locator("#tensors-error").wait_for()
    assert page.locator("#tensors-error").inner_text() == "The queue is full."
    page.unroute("**/infer")
    page.get_by_label("Text", exact=True).fill("ab")
    page.locator(".guesses button").first.wait_for()
    assert page.locator("#tensors-error").is_hidden()


def test_an_image_is_painted(opened, server):
    page = opened("style_tissue")
    page.get_by_label("An image").set_input_files(ROOT / "docs/coffee.jpg")
    after = page.get_by_alt_text("after")
    after.wait_for()
    page.wait_for_function("() => document.querySelector('[alt=after]').complete")
    size = after.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [384, 256]  # coffee.jpg has 600 x 400 pixels, and the recipe's square 384


def test_numbers_about_an_image_are_shown(opened, tmp_path):
    page = opened("steering")
    images, angles = roads(1, seed=11)
    Image.fromarray(images[0]).save(tmp_path / "road.png")
    page.get_by_label("An image").set_input_files(tmp_path / "road.png")
    page.get_by_text("angle:").wait_for()
    shown = float(page.get_by_text("angle:").inner_text().removeprefix("angle: "))
    assert shown == pytest.approx(angles[0], abs=1)


def test_a_walk_between_two_latent_vectors(opened):
    page = opened("digits_gan")
    page.get_by_label("Image 1 of 33").wait_for()
    pixels = "document.querySelector('.walk canvas').toDataURL()"
    assert page.evaluate("document.querySelector('.walk canvas').width") == 28
    first = page.evaluate(pixels)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Where on the walk").fill("32")
    page.get_by_label("Image 33 of 33").wait_for()
    last = page.evaluate(pixels)
    assert first != last
    assert not [url for url in asked if url.endswith("/infer")], "the whole walk was one request"
    page.get_by_role("button", name="Another end").click()
    page.wait_for_function(f"last => {pixels} !== last", arg=last)
