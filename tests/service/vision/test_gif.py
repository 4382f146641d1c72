"""The blocks of a GIF."""

import io

import numpy as np
import pytest
from PIL import Image

from service.errors import Reason, RequestError
from service.vision import gif
from service.vision.decode import decode
from tests.service.vision.attack_images import gif_with

CONTROL = b"!\xf9\4\1\0\0\7\0"  # the seventh colour is transparent
COMMENT = b"!\xfe\5hello\5world\0"
LOOP = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
TEXT = b"!\x01\x0c" + bytes(12) + b"\4text\0"


@pytest.mark.parametrize(
    "blocks",
    [COMMENT, LOOP, TEXT, COMMENT * 1000, b"!\xfe" + b"\xff" * 256 * 4000 + b"\0", b"\0\0\0" + COMMENT],
    ids=["comment", "loop", "text", "comments", "1 MB of comment", "garbage"],
)
@pytest.mark.parametrize("control", [b"", CONTROL], ids=["", "transparent"])
def test_metadata_does_not_affect_the_image(blocks, control):
    plain = gif_with(control)
    assert gif.without_metadata(plain) is plain
    for data in (gif_with(blocks + control), gif_with(control + blocks)):
        assert gif.without_metadata(data) == plain
        assert np.array_equal(decode(data), decode(plain))


def test_pillow_sees_the_same_transparency():
    """Of several control extensions the last counts."""
    data = gif_with(CONTROL[:6] + b"\3\0" + CONTROL)
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    expected = Image.new("RGB", image.size, "white")
    expected.paste(image, mask=image)
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gif_with(b"!\xfe" + b"\1a" * 140_000 + b"\0"), "more than 131072 blocks"),
        (gif_with(b"!\xfe\0" * 140_000), "more than 131072 blocks"),
        (gif_with(b"\0" * 140_000), "more than 131072 blocks"),
        (gif_with(b";"), "no frame"),
        (gif_with(b"")[:20], "no frame"),
        (b"GIF89a", "no frame"),
        (b"GIF8", "no frame"),
    ],
    ids=["sub-blocks", "comments", "zeros", "end", "palette only", "signature", "less"],
)
def test_a_gif_without_a_frame_is_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        decode(data)
    assert caught.value.reason is Reason.UNDECODABLE
