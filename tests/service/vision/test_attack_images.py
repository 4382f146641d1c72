"""Small files that need much time or memory: each is refused or decoded quickly, while other requests are answered."""

import threading

import pytest

from service.vision.decode import MAX_PIXELS
from tests.attack import attacked
from tests.conftest import serving
from tests.service.vision.attack_images import ATTACKS, LARGE

FORMATS = sorted({name.split(":")[0] for name in ATTACKS})
# Files that are decoded; all others are refused.
READ = {
    "jpeg: CMYK with EXIF of many entries",
    "jpeg: EXIF that points to itself",
    "png: text of 64 MB in 64 chunks",
    "png: text of 16 GB",
    "png: international text of 512 MB",
    "png: profile of 256 MB",
    "png: EXIF profile in text, 64 MB",
    "png: EXIF of many entries",
    "png: pixels that inflate to 300 MB",
    "png: a row of a million pixels",
    "gif: frames",
    "gif: a tiny image on a canvas of 50 megapixels",
    "webp: EXIF of many entries",
    "webp: frames",
    "webp: a frame of 50 megapixels",
    "webp: 50 megapixels in a few bytes",
    "tiff: 65,000 tags",
    "tiff: tags that share 30 MB",
    "tiff: directories in a circle",
    "tiff: EXIF of many entries",
    "bmp: empty lines",
    "bmp: a row of a million pixels",
}
GROWTH = 330e6  # bytes: 50 megapixels are 150 MB, which OpenCV has twice for a moment, and there are bodies of 32 MB
TOO_LARGE = {
    "png: one row",
    "png: one column",
    "tiff: one row",
    "bmp: one row",
    "webp: a large frame on a small canvas",
    "avif: a large image in a small container",
}


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("attacked") / "log", ZOOSERVE_LOAD="lenet5") as server:
        server.wait(200)
        yield server


def answer(server, data: bytes, kind: str = "image/jpeg"):
    return server.client.post("/v1/classify?model=lenet5", content=data, headers={"Content-Type": kind})


@pytest.mark.parametrize("form", FORMATS)
def test_other_requests_are_answered_meanwhile(server, photo, form):
    assert LARGE[0] * LARGE[1] <= MAX_PIXELS
    bodies = {name: make() for name, make in ATTACKS.items() if name.split(":")[0] == form}
    answers, statuses, over = {}, [], threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            statuses.append(answer(server, photo("flower")).status_code)

    asking = threading.Thread(target=ask)
    with attacked(server) as seen:
        asking.start()
        for name, body in bodies.items():
            answers[name] = answer(server, body)
        over.set()
        asking.join()
    seen.check(growth=GROWTH)
    assert set(statuses) == {200}
    wrong = {
        name: (found.status_code, found.text[:200])
        for name, found in answers.items()
        if found.status_code != (200 if name in READ else 413 if name in TOO_LARGE else 400)
    }
    assert not wrong
    assert all(
        found.json()["detail"].endswith(("again.", "smaller one.")) for found in answers.values() if found.is_error
    )
