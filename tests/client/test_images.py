"""Images in every form become a file of exactly their pixels."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from zooserve_client import ImageError, images_in
from zooserve_client.images import read_image

from service.vision.decode import decode


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([None, 1, 3, 4]))
    .map(lambda shape: tuple(n for n in shape if n))
    .flatmap(lambda shape: arrays(np.uint8, shape))
)
def test_an_array_becomes_a_png_of_its_pixels(array):
    assert (
        np.asarray(Image.open(io.BytesIO(read_image(array)))) == array.squeeze(2 if array.shape[2:] == (1,) else ())
    ).all()


def test_views_and_pil_images_become_pngs(photo):
    pil = Image.open(io.BytesIO(photo("coffee")))
    pixels = np.asarray(pil.convert("RGB"))
    for image, expected in [
        (pixels[::-2, ::3], pixels[::-2, ::3]),
        (pixels[..., ::-1], pixels[..., ::-1]),
        (pil, pixels),
        (pil.convert("L"), np.repeat(np.asarray(pil.convert("L"))[..., None], 3, 2)),
    ]:
        assert (np.asarray(Image.open(io.BytesIO(read_image(image)))) == expected).all()


def transparent(mode: str) -> Image.Image:
    """The left half of a slope of colours in a mode that has transparency."""
    colours = Image.linear_gradient("L").convert("RGB")
    shown = Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 128, 1).repeat(256, 0))
    if mode == "P":
        colours = colours.quantize(8)
        colours.info["transparency"] = 0
        return colours
    colours = colours.convert(mode)
    colours.putalpha(shown)
    return colours


@pytest.mark.parametrize(
    "image",
    [
        *map(transparent, ("RGBA", "LA", "P")),
        Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)),
        Image.linear_gradient("L").convert("1"),
        Image.linear_gradient("L").convert("P"),
    ],
    ids=lambda image: image.mode,
)
def test_a_pil_image_is_seen_as_its_file_is(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    assert (decode(read_image(image)) == decode(file.getvalue())).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_upright_as_its_file_is(form, orientation):
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    slope = Image.linear_gradient("L").resize((40, 24))
    Image.merge("RGB", (slope, slope.transpose(Image.Transpose.ROTATE_90).resize((40, 24)), slope)).save(
        file, form, exif=exif, lossless=True
    )
    for opened in (Image.open(file), Image.open(file).convert("RGB")):
        assert (decode(read_image(opened)) == decode(file.getvalue())).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_pil_image_of_32_bits_is_refused_as_its_file_is(mode):
    with pytest.raises(ValueError, match=rf"32-bit numbers \(mode {mode}\)"):
        read_image(Image.new(mode, (3, 3), 40_000))


def test_files_and_bytes_are_sent_unchanged(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8")
    assert read_image(path) == read_image(str(path)) == read_image(bytearray(b"\xff\xd8")) == b"\xff\xd8"
    with pytest.raises(ImageError, match=r"nowhere\.jpg: No such file"):
        read_image(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 2), np.uint8)],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        read_image(array)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="not int"):
        read_image(5)


def test_images_of_a_folder_are_listed_in_order(tmp_path):
    for name in ("b.JPG", "a/z.png", "a.webp", "notes.txt", ".hidden/x.png", "a/.y.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [path.relative_to(tmp_path) for path in images_in(tmp_path)] == [
        Path("a/z.png"),
        Path("a.webp"),
        Path("b.JPG"),
    ]
    with pytest.raises(NotADirectoryError):
        images_in(tmp_path / "nowhere")


@pytest.mark.parametrize("target", ["gone.png", "b.png", "closed/a.png"])
def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path, target):
    (tmp_path / "b.png").symlink_to(target)
    (tmp_path / "folder.png").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert images_in(tmp_path) == [tmp_path / "b.png"]
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "b.png")
    assert error.value.reason == "unreadable"


@pytest.mark.parametrize(("closed", "raises"), [("a/below", True), (".hidden", False)])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch, closed, raises):
    scandir = os.scandir

    def refuse(path):
        if str(path) == str(tmp_path / closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (tmp_path / closed).mkdir(parents=True)
    (tmp_path / "b.png").touch()
    monkeypatch.setattr(os, "scandir", refuse)
    if not raises:
        assert images_in(tmp_path) == [tmp_path / "b.png"]
        return
    with pytest.raises(PermissionError, match=closed):
        images_in(tmp_path)
