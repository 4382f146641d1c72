"""Which format a file is in."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Reason, RequestError
from service.vision.formats import Format, sniff

ICO = b"\x00\x00\x01\x00\x01\x00\x10\x10"
HEIC = b"\x00\x00\x00\x18ftypheic"


@pytest.mark.parametrize("form", list(Format))
def test_formats_are_told_by_content(picture, encoded, form):
    assert sniff(encoded(picture("flower"), form)) is form


@pytest.mark.parametrize(
    "data", [b"a cat", b"<svg/>", b"BMW sells cars and more", ICO, HEIC, b"%PDF-1.7", b"\xff\xd8", b"R"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(RequestError, match="JPEG, PNG, WEBP, BMP, GIF, TIFF") as caught:
        sniff(data)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_no_bytes_are_undecodable():
    with pytest.raises(RequestError, match="no bytes") as caught:
        sniff(b"")
    assert caught.value.reason is Reason.UNDECODABLE


@given(st.binary(max_size=64))
def test_any_bytes_are_told_or_refused(data):
    with contextlib.suppress(RequestError):
        assert sniff(data) in Format
