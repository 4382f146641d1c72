"""The browser that the tests share, and pages that nothing escapes from."""

from collections.abc import Iterator

import pytest

from tests.service.http.ui.chromium import chromium, find_chromium


@pytest.fixture(scope="module")
def browser():
    if find_chromium() is None:
        pytest.skip("no Chromium is installed (Debian and Ubuntu: apt-get install chromium)")
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser, server) -> Iterator:
    """Open the page of a server.

    `prepare` gets it before it is loaded. At the end nothing may have been said in the console, or asked of another
    origin.
    """
    contexts, said, asked = [], [], []

    def start(path="", url=server.url, width=1280, height=800, expect=(), prepare=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda m: said.append(m.text) if not any(message in m.text for message in expect) else None)
        context.on("request", lambda request: asked.append((url, request.url)))
        if prepare:
            prepare(page)
        page.goto(f"{url}/ui/{path}")
        return page

    yield start
    for context in contexts:
        context.close()
    assert said == []
    assert [there for own, there in asked if not there.startswith((f"{own}/", "blob:", "data:"))] == []
