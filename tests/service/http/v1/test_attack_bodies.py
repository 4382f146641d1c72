"""Bodies that would hold the event loop or fill the memory: `/livez` answers meanwhile, and so does everybody else."""

import base64
import threading
import time

import pytest

from tests.attack import attacked
from tests.service.http.conftest import status_of

FORM = "multipart/form-data; boundary=x"
IMAGE = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
FIELD = b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n'
END = b"\r\n--x--\r\n"
MB = 1_000_000

ATTACKS = {
    "punycode": ("/v1/classify", FORM + "; charset=punycode", FIELD + b"ab" * 150_000 + END, 400),
    "idna": ("/v1/classify", FORM + "; charset=idna", FIELD + b"a" * MB + END, 400),
    "an undefined charset": ("/v1/classify", FORM + "; charset=undefined", FIELD + b"\xc3\xa9" + END, 400),
    "a charset for names": (
        "/v1/classify",
        FORM + "; charset=punycode",
        IMAGE.replace(b'"a"', b'"' + b"ab" * 3000) + END,
        400,
    ),
    "punycode for BentoML": ("/classify", FORM + "; charset=punycode", FIELD + b"ab" * 150_000 + END, 400),
    "many headers of a part": ("/v1/classify", FORM, b"--x\r\n" + b"a: b\r\n" * 5 * MB + END, 400),
    "a long header of a part": ("/v1/classify", FORM, b"--x\r\ncontent-disposition: " + b"a" * 30 * MB + END, 400),
    "many parts": ("/v1/classify", FORM, (FIELD + b"\r\n") * 500_000 + END, 400),
    "many images": ("/v1/classify", FORM, (IMAGE + b"\r\n") * 400_000 + END, 413),
    "nearly boundaries": ("/v1/classify", FORM, IMAGE + b"\r\n-" * 10 * MB + END, 415),
    "nearly a long boundary": ("/v1/classify", FORM + "\x78" * 150, b"\r\n--" + b"x" * 30 * MB, 400),
    "a long preamble": ("/v1/classify", FORM, b"\r\n" * 15 * MB + b"--x--", 400),
    "a long epilogue": ("/v1/classify", FORM, IMAGE + END + b"\r\n--x" * 6 * MB, 400),
    "a long field": ("/classify", FORM, FIELD + b"1" * 30 * MB + b"\r\n" + IMAGE + b"a" + END, 422),
    "base64 in a part": (
        "/v1/classify",
        FORM,
        b"--x\r\ncontent-disposition: form-data; name=image\r\ncontent-transfer-encoding: base64\r\n\r\n"
        + b"AAAA" * 7 * MB
        + END,
        415,
    ),
    "quoted-printable": (
        "/v1/classify",
        FORM,
        b"--x\r\ncontent-disposition: form-data; name=image\r\ncontent-transfer-encoding: quoted-printable\r\n\r\n"
        + b"=00=00=\n" * 3 * MB
        + END,
        415,
    ),
    "empty texts": ("/v1/classify", "application/json", b'{"images":[' + b'"",' * 10 * MB + b'""]}', 413),
    "short texts": ("/v1/classify", "application/json", b'{"images":[' + b'"QUI=",' * 4 * MB + b'""]}', 413),
    "numbers": ("/v1/classify", "application/json", b'{"x":[' + b"1," * 15 * MB + b'1],"images":[""]}', 413),
    "objects": ("/v1/classify", "application/json", b'{"x":[' + b"{}," * 10 * MB + b'{}],"images":[""]}', 413),
    "deep": ("/v1/classify", "application/json", b'{"images":' + b"[" * 31 * MB, 413),
    "keys": ("/v1/classify", "application/json", b"{" + b'"":0,' * 6 * MB + b'"images":[]}', 413),
    "escaped quotes": ("/v1/classify", "application/json", b'{"images":["' + b'\\"' * 15 * MB + b'"]}', 400),
    "backslashes": ("/v1/classify", "application/json", b'{"images":["' + b"\\\\" * 15 * MB + b'"]}', 400),
    "escapes": ("/v1/classify", "application/json", b'{"images":["' + b"\\u0041" * 5 * MB + b'"]}', 415),
    "blanks": ("/v1/classify", "application/json", b'{"images":["' + b" " * 31 * MB + b'"]}', 415),
    "paddings": ("/v1/classify", "application/json", b'{"images":["' + b"=" * 31 * MB + b'"]}', 400),
    "one large text": ("/v1/classify", "application/json", b'{"images":["' + b"AAAA" * 7 * MB + b'"]}', 415),
    "JSON for BentoML": ("/classify", "application/json", b'{"image":[' + b"{}," * 10 * MB + b"{}]}", 415),
    "a form for BentoML": ("/detect", "application/x-www-form-urlencoded", b"a=b&" * 7 * MB, 415),
    "a pickle for BentoML": ("/segment", "application/vnd.bentoml+pickle", b"(" * 30 * MB, 415),
    "bytes for BentoML": ("/classify", "application/octet-stream", bytes(30 * MB), 415),
    "no type for BentoML": ("/classify", "", bytes(30 * MB), 415),
    "JSON for an administrator": ("/v1/models/reload", "application/json", b"[" * 30 * MB, 403),
    "JSON for a page": ("/docs.json", "application/json", b"[" * 30 * MB, 405),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_body_does_not_delay_other_requests(small, wire, digit, attack):
    path, kind, body, status = ATTACKS[attack]
    small.client.post("/v1/classify", content=digit)
    with attacked(small) as seen:
        answer = wire.post(path, kind, body)
        assert small.client.post("/v1/classify", content=digit).status_code == 200
    seen.check()
    if answer or len(body) < MB:  # what was still on its way may have reset the connection
        assert status_of(answer) == status, answer[:500]


@pytest.mark.parametrize("attack", ["punycode", "nearly boundaries", "empty texts", "numbers", "JSON for BentoML"])
def test_many_bodies_do_not_delay_other_requests(small, wire, digit, attack):
    path, kind, body, _ = ATTACKS[attack]
    threads = [threading.Thread(target=wire.post, args=(path, kind, body[: 3 * MB])) for _ in range(10)]
    with attacked(small) as seen:
        for thread in threads:
            thread.start()
        assert small.client.post("/v1/classify", content=digit).status_code == 200
        for thread in threads:
            thread.join()
    seen.check()


CHUNKED = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
FRAMED = {
    "chunks of a byte": (CHUNKED + b"1\r\na\r\n" * 5 * MB + b"0\r\n\r\n", 400),
    "chunks with long extensions": (CHUNKED + (b"1;" + b"e" * 50_000 + b"\r\na\r\n") * 600 + b"0\r\n\r\n", 415),
    "an endless extension": (CHUNKED + b"1;" + b"e" * 30 * MB + b"\r\na\r\n0\r\n\r\n", 431),
    "endless trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 5 * MB + b"\r\n", 431),
    "pipelined requests": (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 500_000, 200),
    "pipelined offers": (
        b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 300_000,
        200,
    ),
    "headers": (b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 5 * MB + b"\r\n", 431),
    "empty lines": (b"\r\n" * 10 * MB + b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 431),
}


@pytest.mark.parametrize("attack", FRAMED)
def test_the_framing_of_a_request_does_not_delay_others(small, wire, digit, attack):
    request, status = FRAMED[attack]
    with attacked(small) as seen:
        answer = wire.ask(request)
        assert small.client.post("/v1/classify", content=digit).status_code == 200
    seen.check()
    if answer:
        assert status_of(answer) == status, answer[:500]


def test_invalid_requests_are_logged_without_their_content(small, wire):
    secret = base64.b64encode(b"a secret that nobody is to read").decode()
    before = len(small.log.read_text().splitlines())
    for kind in ("application/x-www-form-urlencoded", "application/json", FORM, "text/plain", "x/y", ""):
        for path in ("/classify", "/detect", "/v1/classify"):
            wire.post(path, kind, b"image=" + secret.encode())
    end = time.monotonic() + 10
    while len(lines := small.log.read_text().splitlines()[before:]) < 18 and time.monotonic() < end:
        time.sleep(0.05)  # the log is written behind the answer
    assert len(lines) == 18, "one each: the access log's"
    assert not any("Traceback" in line or secret in line for line in lines)
