"""What clients declare, and what counts: catch-all types, parts of a form, and BentoML's typed endpoints."""

import base64
import contextlib
import json
import re
import time

import pytest

from tests.service.http.conftest import status_of

CATCH_ALL = """application/octet-stream binary/octet-stream application/x-image application/binary image/* */*
application/* application/unknown image/jpg image/pjpeg application/x-www-form-urlencoded multipart application/jpeg
APPLICATION/OCTET-STREAM;charset=utf-8 application/force-download x"""


@pytest.mark.parametrize("kind", ["", *CATCH_ALL.split()])
def test_the_image_format_is_detected_from_the_bytes(small, digit, kind):
    response = small.client.post("/v1/classify", content=digit, headers={"content-type": kind} if kind else {})
    assert response.status_code == 200, response.text
    text = small.client.post("/v1/classify", content=b"not an image", headers={"content-type": kind} if kind else {})
    assert text.status_code == 415


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/html",
        "application/pdf",
        "video/mp4",
        "audio/mpeg",
        "font/woff2",
        "multipart/mixed",
        "message/rfc822",
    ],
)
def test_content_types_other_than_images_are_refused(small, digit, kind):
    response = small.client.post("/v1/classify", content=digit, headers={"content-type": kind})
    assert response.status_code == 415
    assert kind in response.json()["detail"]


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_a_body_that_is_not_encoded_may_say_so(wire, digit, coding):
    head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding:{coding}\r\n"
    assert status_of(wire.ask(f"{head}content-length: {len(digit)}\r\n\r\n".encode() + digit)) == 200


def form(digit: bytes, *headers: str) -> bytes:
    return b"--x\r\n" + "".join(f"{header}\r\n" for header in headers).encode() + b"\r\n" + digit + b"\r\n--x--\r\n"


def quoted(data: bytes) -> bytes:
    return b"".join(b"=%02X" % byte for byte in data)


NAMED = 'Content-Disposition: form-data; name="image"'


@pytest.mark.parametrize(
    ("headers", "encode"),
    [
        ([NAMED], bytes),
        ([NAMED, "Content-Type: image/png"], bytes),
        ([NAMED + '; filename=""'], bytes),
        ([NAMED + "; filename*=UTF-8''%e2%82%ac.png"], bytes),
        ([NAMED + '; filename="a.png"', "Content-Type: text/plain; charset=punycode"], bytes),
        ([NAMED, "Content-Transfer-Encoding: binary"], bytes),
        ([NAMED, "Content-Transfer-Encoding: base64"], base64.encodebytes),
        ([NAMED, "content-transfer-encoding: BASE64"], base64.b64encode),
        (
            [NAMED, "Content-Transfer-Encoding: quoted-printable"],
            lambda data: b"".join(b"=%02X" % byte for byte in data),
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_a_part_named_image_is_an_image(wire, digit, headers, encode, path):
    answer = wire.post(path, "multipart/form-data; boundary=x", form(encode(digit), *headers))
    assert status_of(answer) == 200, answer
    assert b'"7"' in answer


def test_a_part_of_more_than_a_megabyte_is_an_image(wire, digit):
    large = digit[:-12] + b"".join([b"\0\x0f\x42\x40prVt", bytes(1_000_000), b"\0\0\0\0"]) + digit[-12:]
    answer = wire.post("/v1/classify", "multipart/form-data; boundary=x", form(large, NAMED))
    assert status_of(answer) in (200, 400), answer  # the chunk has no checksum; what counts is that it was read
    assert b"No part" not in answer


def count(server, **labels: str) -> float:
    wanted = {f'{name}="{value}"' for name, value in labels.items()}
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith("zooserve_requests_total{") and wanted <= set(re.findall(r'\w+="[^"]*"', line)):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def test_requests_to_bentoml_endpoints_are_counted_like_all_others(small, digit):
    labels = {"task": "classify", "model": "lenet5", "code": "200"}
    before = count(small, **labels)
    response = small.client.post(
        "/classify", files={"image": digit}, data={"top_k": "1"}, headers={"x-request-id": "typed-1"}
    )
    assert response.status_code == 200
    assert response.json() == small.client.post("/v1/classify?top_k=1", content=digit).json()
    assert response.headers["x-request-id"] == "typed-1"
    assert "infer;dur=" in response.headers["server-timing"]
    assert count(small, **labels) == before + 2
    end = time.monotonic() + 10
    while "typed-1" not in small.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"top_k": "3"}, 200, ""),
        ({"top_k": "3", "model": '"lenet5"'}, 200, ""),
        ({"model": "lenet5", "localize": "false", "heatmap": "False"}, 200, ""),
        ({"model": ""}, 200, ""),
        ({"model": "null"}, 200, ""),  # as BentoML's client writes None
        ({"model": "[1]"}, 404, "[1]"),
        ({"model": "5"}, 404, "5"),
        ({"version": "1"}, 200, ""),
        ({"version": "2"}, 404, "2"),
        ({"top_k": "0"}, 422, "top_k"),
        ({"top_k": "[" * 900}, 422, "top_k"),
        ({"top_k": "x" * 5000}, 422, "top_k"),
        ({"k": "1"}, 422, "top_k"),
    ],
)
def test_bentoml_endpoints_validate_their_options(small, digit, fields, status, said):
    response = small.client.post("/classify", files={"image": digit}, data=fields)
    assert response.status_code == status, response.text
    assert said in response.text
    assert len(response.content) < 2000


def test_requests_to_bentoml_endpoints_have_a_deadline(small, digit):
    response = small.client.post("/classify", files={"image": digit}, headers={"x-request-timeout-ms": "0.001"})
    assert response.status_code in (429, 504), response.text
    assert json.loads(response.content)["reason"] in ("deadline", "queue_full")


def test_bodies_are_not_logged(small, wire, digit):
    mark = b"a-secret-in-a-body"
    field = b'--x\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (mark, mark)
    for body in (field + form(digit, NAMED), field, mark, form(mark, NAMED), form(digit, NAMED)[:-9]):
        with contextlib.suppress(OSError):
            wire.post("/classify", "multipart/form-data; boundary=x", body)
            wire.post("/v1/classify", "multipart/form-data; boundary=x", body)
    assert mark.decode() not in small.log.read_text()
