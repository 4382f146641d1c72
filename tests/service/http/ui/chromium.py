"""A headless Chromium and the page in it, for the tests and for the README's screenshot."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own, thrown away at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_FLAGS)
        yield browser
        browser.close()


def answered(page: Page, name: str = "") -> None:
    """Wait until the image `name`, or any, has its answer on the page."""
    page.wait_for_function(
        """name => document.getElementById("name").textContent.startsWith(name)
            && document.querySelector("#name span") && document.getElementById("busy").hidden""",
        arg=name,
    )


def drop(page: Page, *files: Path, how: str = "drop") -> None:
    """Drop files on the page, or paste them."""
    page.evaluate(
        """([files, how]) => {
            const data = new DataTransfer();
            for (const [name, type, bytes] of files)
                data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name, {type}));
            const event = how === "drop"
                ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [[_described(file) for file in files], how],
    )


def _described(file: Path) -> tuple[str, str, str]:
    import base64
    import mimetypes

    return file.name, mimetypes.guess_type(file.name)[0] or "", base64.b64encode(file.read_bytes()).decode()
