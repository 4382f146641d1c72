"""`Accept`: which form of an answer a request gets, and that an image is the answer drawn into what was sent."""

import asyncio
import io
import re
import threading
import time
from time import perf_counter

import numpy as np
import pytest
from PIL import Image, ImageChops

from service.errors import Reason, RequestError
from service.http.media import PNG, wanted
from service.http.v1.annotate import JPEG, OFFERED, Annotator
from service.results import Classification, ImageSize, Result
from service.settings import Settings


@pytest.fixture
def encoded_png():
    """`encoded_png(width, height)`: the bytes of a grey image."""

    def encode(width: int, height: int) -> bytes:
        out = io.BytesIO()
        Image.new("L", (width, height), 90).save(out, "PNG")
        return out.getvalue()

    return encode


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (b"", b""),
        (b"*/*", b""),
        (b"application/json", b""),
        (b"application/*", b""),
        (b"Application/JSON; charset=utf-8", b""),
        (b"image/png", PNG),
        (b"IMAGE/PNG", PNG),
        (b"image/jpeg", JPEG),
        (b"image/*", PNG),
        (b"image/png;q=0.5, image/jpeg", JPEG),
        (b"image/jpeg;q=0.5, application/json;q=0.4", JPEG),
        (b"image/jpeg;q=0.5,application/json;q=0.5", b""),
        (b"image/*;q=0.9, image/png;q=0.1, */*;q=0.2", JPEG),
        (b"*/*, application/json;q=0", PNG),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", b""),
        (b"image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PNG),
        (b"text/html, application/json;q=nonsense, image/jpeg;q=0.1", JPEG),
    ],
)
def test_the_type_with_the_highest_q_value_is_chosen(accept, kind):
    assert wanted(accept, OFFERED[True]) == kind


@pytest.mark.parametrize("rest", [b"," * 60_000, b",;q=" * 15_000, b",a/b" * 15_000])
def test_a_long_accept_header_is_read_at_its_beginning(rest):
    start = time.process_time()
    for _ in range(100):
        assert wanted(b"image/png" + rest, OFFERED[True]) == b"image/png"
    assert time.process_time() - start < 1


@pytest.mark.parametrize("accept", [b"text/html", b"image/webp", b"image/png;q=0", b"*/*;q=0", b",;,=", b"\xff"])
def test_an_unsupported_accept_is_refused_with_the_supported_types(accept):
    with pytest.raises(RequestError, match="`application/json`, `image/png`, `image/jpeg`") as refused:
        wanted(accept, OFFERED[True])
    assert refused.value.reason is Reason.NOT_ACCEPTABLE


@pytest.mark.parametrize(
    ("task", "model", "form"),
    [("detect", "yolov4_tiny", "PNG"), ("segment", "u2netp", "JPEG"), ("classify", "mobilenet_v2", "PNG")],
)
def test_the_answer_is_drawn_on_the_image(server, photo, task, model, form):
    data = photo("coffee")
    original = Image.open(io.BytesIO(data)).convert("RGB")
    kind = f"image/{form.lower()}"
    answer = server.client.post(f"/v1/{task}", content=data, params={"model": model}, headers={"accept": kind})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-request-id"]
    assert re.match(r"read;dur=\S+, decode;.*infer;.*encode;dur=\S+, total;", answer.headers["server-timing"])
    drawn = Image.open(io.BytesIO(answer.content))
    assert (drawn.format, drawn.size) == (form, original.size)
    changed = np.asarray(ImageChops.difference(drawn.convert("RGB"), original)).max(2) > 40
    assert 0.01 < changed.mean() < 0.9
    if task == "detect":  # the frame around the cup, and nothing changed inside of both frames
        result = server.client.post("/v1/detect", content=data, params={"model": model}).json()
        left, top, right, bottom = (round(value) for value in result["predictions"][0]["box"])
        assert changed[top + 20 : bottom, left].mean() > 0.9
        assert not changed[top + 60 : bottom - 60, left + 60 : right - 60].any()


def test_a_small_image_keeps_its_size(server, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    answer = server.client.post(
        "/v1/classify", content=digit, params={"model": "lenet5"}, headers={"accept": "image/png"}
    )
    assert Image.open(io.BytesIO(answer.content)).size == Image.open(io.BytesIO(digit)).size


@pytest.mark.parametrize(
    ("accept", "content", "status", "reason"),
    [
        ("text/html", None, 406, "not_acceptable"),
        ("image/png", b"not an image", 415, "not_an_image"),
    ],
)
def test_errors_are_problems_also_if_an_image_was_accepted(server, photo, accept, content, status, reason):
    answer = server.client.post("/v1/detect", content=content or photo("coffee"), headers={"accept": accept})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == reason


def test_an_image_too_large_for_a_jpeg_is_refused_as_one(server, encoded_png):
    headers = {"content-type": "image/png", "accept": "image/jpeg"}
    refused = server.client.post("/v1/detect", content=encoded_png(65_501, 2), headers=headers)
    assert (refused.status_code, refused.json()["reason"]) == (406, "not_acceptable")
    assert "at most 65500 pixels" in refused.json()["detail"]
    drawn = server.client.post("/v1/detect", content=encoded_png(65_500, 2), headers=headers)
    assert drawn.headers["content-type"] == "image/jpeg"


def test_the_longest_side_has_masks_and_heat_maps(server, encoded_png):
    for path in ("segment?mask=png", "segment?model=u2netp&mask=png", "classify?heatmap=true"):
        answer = server.client.post(f"/v1/{path}", content=encoded_png(1_000_000, 2))
        assert answer.status_code == 200, answer.text
    assert server.client.post("/v1/segment?mask=png", content=encoded_png(1_000_001, 2)).status_code == 413


def test_several_images_cannot_be_answered_with_an_image(server, photo):
    parts = [("image", photo("coffee"))] * 2
    answer = server.client.post("/v1/detect", files=parts, headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["reason"]) == (406, "not_acceptable")
    assert "2 were sent" in answer.json()["detail"]
    one = server.client.post("/v1/detect", files=parts[:1], headers={"accept": "image/png"})
    assert (one.status_code, one.headers["content-type"]) == (200, "image/png")


def test_the_number_of_waiting_drawings_is_limited(models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    result = Result("m", "1", "classify", ImageSize(28, 28), [Classification(7, "7", 1.0)])
    annotator = Annotator(Settings(max_queue=4))

    async def draw_all():
        drawings = [annotator.draw(digit, result, JPEG, perf_counter() + 30) for _ in range(6)]
        first = await asyncio.gather(*drawings, return_exceptions=True)
        return [*first, await annotator.draw(digit, result, JPEG, perf_counter() + 30)]

    outcomes = asyncio.run(draw_all())
    assert [type(outcome) for outcome in outcomes] == [bytes] * 4 + [RequestError] * 2 + [bytes]
    assert (outcomes[4].reason, outcomes[4].retry_after) == (Reason.QUEUE_FULL, 1)


def test_an_abandoned_drawing_counts_until_it_ends(monkeypatch):
    release = threading.Event()
    annotator = Annotator(Settings(max_queue=1))
    monkeypatch.setattr(annotator, "_draw", lambda *_: release.wait(30))

    async def draw_all():
        ends = []
        for _ in range(2):
            try:
                await annotator.draw(b"", None, JPEG, perf_counter() + 0.01)
            except RequestError as error:
                ends.append(error.reason)
        release.set()
        while annotator._waiting:
            await asyncio.sleep(0.001)
        return ends

    assert asyncio.run(draw_all()) == [Reason.DEADLINE, Reason.QUEUE_FULL]


def test_the_deadline_includes_the_drawing():
    out = io.BytesIO()
    Image.effect_noise((4000, 3000), 60).convert("RGB").save(out, "JPEG")
    result = Result("m", "1", "classify", ImageSize(4000, 3000), [Classification(0, "noise", 1.0)])
    with pytest.raises(RequestError, match="before the answer was drawn") as late:
        asyncio.run(Annotator(Settings()).draw(out.getvalue(), result, PNG, perf_counter() + 0.01))
    assert late.value.reason is Reason.DEADLINE
