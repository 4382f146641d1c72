"""Images in base64, in JSON: whatever is base64 without doubt is read, and nothing is made of the body's size."""

import asyncio
import base64
import json
import quopri
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Reason, RequestError
from service.http.v1 import encoded
from service.http.v1.encoded import from_base64, from_quoted_printable
from service.http.v1.json_images import MAX_OTHER, images_from_json

DATA = random.Random(7).randbytes(100_001)  # with every digit, and a padding
TEXT = base64.b64encode(DATA)
PLUSES = base64.b64encode(b"\xfb\xef\xbe\xff" * 100)


@pytest.fixture(params=[1 << 18, 64, 97], ids=["whole", "pieces", "odd pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(encoded, "_PIECE", request.param)


def images(body: bytes, most: int = 8) -> list[bytes | RequestError]:
    return asyncio.run(images_from_json(body, most))


def refused(body: bytes, **options) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        images(body, **options)
    return refusal.value


WRITTEN = {
    "plain": TEXT,
    "URL-safe": base64.urlsafe_b64encode(DATA),
    "without padding": TEXT.rstrip(b"="),
    "URL-safe without padding": base64.urlsafe_b64encode(DATA).rstrip(b"="),
    "lines": base64.encodebytes(DATA),
    "lines of Windows": base64.encodebytes(DATA).replace(b"\n", b"\r\n"),
    "indented lines": b"\n    " + base64.encodebytes(DATA).replace(b"\n", b"\n    "),
    "plus turned to a blank": TEXT.replace(b"+", b" "),
    "a data URL": b"data:image/png;base64," + TEXT,
    "a data URL with a name": b"DATA:image/png;name=a.png;base64," + TEXT,
    "a data URL in a form": b"data:image/png;base64," + TEXT.replace(b"+", b" "),
    "a data URL with lines": b" data:;base64,\n" + base64.encodebytes(DATA),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.usefixtures("pieces")
def test_base64_variants_of_clients_are_decoded(text):
    assert asyncio.run(from_base64(text, 0, len(text))) == DATA
    body = json.dumps({"images": [text.decode(), "QUI="]}).encode()
    assert images(body) == [DATA, b"AB"]
    assert images(body.replace(b"/", b"\\/")) == [DATA, b"AB"], "PHP"
    escaped = body.replace(b"=", b"\\u003d").replace(b"+", b"\\u002B").replace(b"/", b"\\u002f")
    assert images(b"\xef\xbb\xbf" + escaped) == [DATA, b"AB"], "Gson, behind a byte order mark"


INVALID = {
    "other characters": b"?!" + TEXT,
    "a character less": TEXT[:-3],
    "a padding too long": TEXT + b"=",
    "a padding too short": PLUSES[:400] + base64.b64encode(b"a")[:-1],
    "two": TEXT + TEXT,
    "a padding within": TEXT[:400] + b"=" + TEXT[400:],
    "padding alone": b"=" * 400,
    "both pluses and blanks": PLUSES[:200] + PLUSES[200:].replace(b"+", b" "),
    "a data URL without base64": b"data:image/png," + TEXT,
    "not ASCII": "é".encode() * 100,
    "hexadecimal with a prefix": b"0x:" + DATA[:100].hex().encode(),
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
@pytest.mark.usefixtures("pieces")
def test_an_image_with_invalid_base64_is_replaced_by_its_error(text):
    broken, good = images(b'{"images": ["%b", "QUI="]}' % text)
    assert isinstance(broken, RequestError)
    assert broken.reason is Reason.BAD_REQUEST
    assert "images[0]" in broken.detail
    assert len(broken.detail) < 300
    assert good == b"AB"


@given(st.binary(max_size=300))
def test_any_bytes_in_quoted_printable_are_decoded(data):
    text = quopri.encodestring(data, quotetabs=True)
    assert asyncio.run(from_quoted_printable(text)) == data


def test_other_keys_and_other_formatting_of_the_json_are_accepted():
    text = base64.b64encode(b"x" * 500).decode()
    body = {'a\\"b': ["\\", '\\"', {"images": ["no"]}], "long": 'é\n"' * 20 + "x" * 99, "images": ["", text, "QUI="]}
    assert images(json.dumps(body).encode()) == [b"", b"x" * 500, b"AB"]
    assert images(json.dumps(body, indent=2, ensure_ascii=False).encode()) == [b"", b"x" * 500, b"AB"]


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        (b"", Reason.BAD_REQUEST, "not JSON"),
        (b"{images:", Reason.BAD_REQUEST, "not JSON"),
        (b'{"images": "x"}', Reason.BAD_REQUEST, "Expected `array`"),
        (b'{"images": [1]}', Reason.BAD_REQUEST, "Expected `str`"),
        (b'{"image": "x"}', Reason.BAD_REQUEST, "images"),
        (b'{"images": []}', Reason.BAD_REQUEST, "empty"),
        (b'{"images": ["x', Reason.BAD_REQUEST, "no end"),
        (b'{"images": ["x\\"]}', Reason.BAD_REQUEST, "no end"),
        (b'{"images": ["' + b'\\"' * 1_000_000 + b'"]}', Reason.BAD_REQUEST, "escaped quotes"),
        (b'{"images": ["' + b"\\\\" * 1_000_000 + b'"]}', Reason.BAD_REQUEST, ""),
        (b'{"images": [' + b'"",' * 8 + b'""]}', Reason.TOO_LARGE, "More than 8 images"),
        (b'{"images": [' + b'"",' * 1_000_000 + b'""]}', Reason.TOO_LARGE, "apart from the images"),
        (b'{"images": [' + b'"%b",' % TEXT[:100] * 100_000 + b'""]}', Reason.TOO_LARGE, "more images"),
        (b'{"x": [' + b"1," * 1_000_000 + b'1], "images": []}', Reason.TOO_LARGE, str(MAX_OTHER)[:1]),
        (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", Reason.BAD_REQUEST, "recursion"),
        (b" " * 1_000_000 + b'{"images": [""]}', Reason.TOO_LARGE, ""),
        (b'{"images": ["\xff"]}', Reason.BAD_REQUEST, ""),
    ],
)
def test_invalid_json_bodies_are_refused(body, reason, said):
    error = refused(body)
    assert error.reason is reason
    assert said in error.detail
    assert len(error.detail) < 400


def test_the_largest_allowed_number_of_images_is_accepted():
    body = json.dumps({"images": [TEXT.decode()] * 32}).encode()
    assert images(body, 32) == [DATA] * 32
