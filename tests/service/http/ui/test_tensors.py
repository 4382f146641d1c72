"""The page of models that take tensors, in a real Chromium: letters, a walk between latent vectors, pictures."""

import pytest

from export.pipeline import export_model
from tests.conftest import serving
from zoo import catalog
from zoo.store import Store

NAMES = ("char_lstm",)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = tmp_path_factory.mktemp("models")
    for name in NAMES:
        export_model(catalog.find(name), Store(store))
    with serving(tmp_path_factory.mktemp("server") / "log", ZOOSERVE_MODELS=str(store)) as server:
        server.wait(200)
        yield server


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
