"""The bodies that hold images as fuzz targets: multipart forms, and JSON with base64."""

import base64
import json
from collections.abc import Awaitable, Iterator
from contextlib import suppress

from loadtests.album import SAMPLES, jpeg
from service.errors import RequestError
from service.http.v1.encoded import from_quoted_printable
from service.http.v1.json_images import images_from_json
from service.http.v1.multipart import Multipart

Seeds = Iterator[tuple[str, bytes]]
MAX_IMAGES = 8
_KIND = b"multipart/form-data; boundary=x"


def read_multipart(data: bytes) -> None:
    """Read a form. The input's first byte says in pieces of which size it arrives, its first line is its type."""
    size = 1 + 37 * data[0] if data else 1
    kind, _, body = data[1:].partition(b"\n")
    with suppress(RequestError):
        form = Multipart(kind, MAX_IMAGES)
        for start in range(0, len(body), size):
            form.feed(body[start : start + size])
        form.finish()
        for image in form.images:
            with suppress(ValueError):
                _finish(from_quoted_printable(image.data))


def read_json_images(data: bytes) -> None:
    """Read a body of JSON with images in base64."""
    with suppress(RequestError):
        _finish(images_from_json(data, MAX_IMAGES))


def multipart_seeds() -> Seeds:
    """Forms as curl, browsers and mail libraries write them."""
    image = jpeg(SAMPLES[0], (16, 16)).data
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n'
    field = b'--x\r\ncontent-disposition: form-data; name="top_k"\r\n\r\n3\r\n'
    encoded = b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(image)
    bodies = {
        "one": part + b"\r\n" + image + b"\r\n--x--\r\n",
        "several": (part + b"\r\n" + image + b"\r\n") * 3 + field + b"--x--",
        "encoded": part + encoded + b"\r\n--x--\r\n",
        "preamble": b"hello\r\n" + field + part + b"\r\n\r\n--x--\r\nbye",
    }
    for name, body in bodies.items():
        for size in (0, 1, 255):
            yield f"{name}-{size}", bytes([size]) + _KIND + b"\n" + body


def json_seeds() -> Seeds:
    """Bodies as clients write them: `data:` URLs, line breaks, the other alphabet, escapes, no padding."""
    image = jpeg(SAMPLES[0], (16, 16)).data
    text = base64.b64encode(image).decode()
    texts = {
        "plain": text,
        "url": f"data:image/jpeg;base64,{text}",
        "lines": base64.encodebytes(image).decode(),
        "safe": base64.urlsafe_b64encode(image).decode().rstrip("="),
        "short": "aGk=",
    }
    for name, one in texts.items():
        yield name, json.dumps({"images": [one, one]}).encode()
    yield "escaped", json.dumps({"images": [text]}).replace("/", "\\/").encode()
    yield "beside", b"\xef\xbb\xbf" + json.dumps({"x": [{}], "images": [text]}).encode()


def _finish(reading: Awaitable[object]) -> None:
    """Run what only ever lets the event loop turn, without one: that is ten times as quick."""
    steps = reading.__await__()
    with suppress(StopIteration):
        while True:
            next(steps)
