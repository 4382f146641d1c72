"""Multipart bodies, byte by byte: what is an image, what is refused, and that how they are cut is of no matter."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Reason, RequestError
from service.http.v1.multipart import MAX_HEAD, MAX_OTHERS, MAX_VALUE, Image, Multipart

KIND = b"multipart/form-data; boundary=x"


def part(*headers: bytes, body: bytes = b"abc") -> bytes:
    return b"--x\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body + b"\r\n"


def image(body: bytes) -> bytes:
    return part(b'Content-Disposition: form-data; name="image"; filename="a.png"', body=body)


def parsed(body: bytes, kind: bytes = KIND, sizes: tuple[int, ...] = (), max_images: int = 4) -> Multipart:
    form = Multipart(kind, max_images)
    for size in sizes:
        form.feed(body[:size])
        body = body[size:]
    form.feed(body)
    form.finish()
    return form


def refused(body: bytes, kind: bytes = KIND, **options) -> str:
    with pytest.raises(RequestError) as refusal:
        parsed(body, kind, **options)
    assert refusal.value.reason in (Reason.BAD_REQUEST, Reason.TOO_LARGE)
    return refusal.value.detail


@pytest.mark.parametrize(
    "header",
    [
        b'Content-Disposition: form-data; name="image"; filename="a.png"',
        b'Content-Disposition: form-data; name="image"',
        b"content-disposition:form-data;name=image",
        b"CONTENT-DISPOSITION: form-data; NAME=image ; filename*=UTF-8''a%20b.png",
        b'Content-Disposition: form-data;\r\n name="image";\r\n\tfilename="a.png"',
        b'Content-Disposition: form-data; filename="a;b\\"c; name=\\"x\\".png"; name="image"',
        b'Content-Disposition: form-data; filename="C:\\dir\\a.png"; name="image"',
        b'Content-Disposition: form-data; filename="' + b"a" * 4000 + b'"; name="image"',
        b'Content-Disposition: form-data; name="image"; filename="\xff\xfe"\r\nX: ' + b"y" * 1000,
        b'Content-Disposition: form-data; name="image"; name="other"',
    ],
)
def test_a_part_named_image_is_an_image(header):
    assert parsed(part(header) + b"--x--\r\n").images == [Image(b"abc", b"")]


@pytest.mark.parametrize("encoding", [b"base64", b"BINARY ", b" quoted-printable"])
def test_the_transfer_encoding_of_a_part_is_returned(encoding):
    body = part(b"Content-Transfer-Encoding:" + encoding, b"Content-Disposition: form-data; name=image") + b"--x--"
    assert parsed(body).images == [Image(b"abc", encoding.strip().lower())]


@pytest.mark.parametrize("charset", [b"punycode", b"idna", b"undefined", b"utf-16", b"nothing", b"utf-7"])
def test_names_and_values_are_read_as_utf_8(charset):
    field = part(b'content-disposition: form-data; name="\xc3\xa9\xff"', body="größe".encode() + b"\xff")
    assert parsed(field + b"--x--", KIND + b"; charset=" + charset).fields == {"é\ufffd": "größe\ufffd"}


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        (b"", b"\r\n", b""),
        (b"", b" \t \r\n", b"\r\n"),
        (b"ignored\r\n--y\r\n", b"\r\n", b"ignored, too\r\n--x\r\n"),
        (b"\r\n", b"\r\n", b"\r\n" * 1000),
    ],
)
def test_preamble_and_epilogue_are_ignored(before, between, after):
    head = b'content-disposition: form-data; name="image"\r\n\r\n'
    body = before + b"--x" + between + head + b"1\r\n--x" + between + head + b"\r\n--x--" + after
    assert [each.data for each in parsed(body).images] == [b"1", b""]


@pytest.mark.parametrize("kind", [b'multipart/form-data; charset=utf-8; Boundary="a b;c"', b"m/f ; boundary=a b;c"])
def test_quoted_and_unusual_boundaries_are_parsed(kind):
    delimiter = b"--a b;c" if b'"' in kind else b"--a b"
    body = delimiter + b'\r\ncontent-disposition: x; name="image"\r\n\r\n1\r\n' + delimiter + b"--"
    assert [each.data for each in parsed(body, kind).images] == [b"1"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "closing boundary"),
        (b"nothing", "closing boundary"),
        (image(b"abc"), "closing boundary"),
        (image(b"abc") + b"--x", "closing boundary"),
        (b"--xy\r\n\r\n\r\n--x--", "end of its line"),
        (b"--x" + b" " * 200, "end of its line"),
        (b"--x\r\n" + b"a" * MAX_HEAD, "headers of a part"),
        (b"--x\r\n" + b"a: b\r\n" * MAX_HEAD + b"\r\n", "headers of a part"),
        (part() * (MAX_OTHERS + 1), f"more than {MAX_OTHERS} parts"),
        (image(b"") * 5, "More than 4 images"),
    ],
)
def test_invalid_multipart_bodies_are_refused(body, said):
    assert said in refused(body)


@pytest.mark.parametrize(
    "kind", [b"multipart/form-data", KIND[:-1], KIND + b"x" * 300, b"multipart/form-data; boundary"]
)
def test_a_content_type_without_a_boundary_is_refused(kind):
    assert "boundary" in refused(b"--x--", kind)


def test_long_field_values_are_truncated():
    form = Multipart(KIND, 1)
    form.feed(b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n")
    for _ in range(100):
        form.feed(b"b" * 100_000)
        assert len(form._buffer) < 200_000
    form.feed(b"\r\n--x--")
    form.finish()
    assert form.fields == {"a": "b" * MAX_VALUE}


PIECES = [b"\r\n", b"--x", b"--x--", b"\r", b"\n", b"-", b"--", b"x", image(b"1"), part(), b"\r\n\r\n", b"a" * 1100]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.lists(st.integers(0, 40), max_size=30))
def test_a_body_split_into_any_chunks_parses_the_same(body, sizes):
    def outcome(cuts: tuple[int, ...]) -> object:
        try:
            form = parsed(body, sizes=cuts)
        except RequestError as error:
            return error.detail
        return form.images, form.fields

    assert outcome(tuple(sizes)) == outcome(()) == outcome((1,) * len(body))


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_any_image_bytes_are_returned_unchanged(images):
    images = [each for each in images if b"--x" not in each]
    assert [each.data for each in parsed(b"".join(map(image, images)) + b"--x--\r\n").images] == images


@pytest.mark.parametrize(
    "body",
    [
        b'; a="' * 8000,
        image(b"\r\n-" * 1_000_000),
        image(b"\r\n--" * 1_000_000),
        b"\r\n--" * 1_000_000,
        part(b"content-disposition: form-data" + b'; a="' * 1500),
        part(b"content-disposition: form-data" + b";" * 8000),
        part(b"content-disposition: form-data;" + b" " * 8000),
        part(b"content-disposition: form-data" + b'; a="\\' * 1300),
    ],
)
def test_parsing_time_is_linear_in_the_size(body):
    """A hang guard: what is quadratic takes minutes."""
    start = time.monotonic()
    with contextlib.suppress(RequestError):
        parsed(body, sizes=(65536,) * (len(body) // 65536))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("header", [b"m; boundary=b" + b';a=""' * 12_000, b"m; boundary=b;" + b";" * 60_000])
def test_of_thousands_of_parameters_the_first_are_read(header):
    start = time.process_time()
    for _ in range(100):
        Multipart(header, 1)
    assert time.process_time() - start < 0.5
