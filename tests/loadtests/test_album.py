"""Photos of a folder, and the zoo's own."""

import io

import pytest
from PIL import Image

from loadtests.album import SAMPLES, album, jpeg


def test_the_samples():
    photos = album()
    assert [photo.name for photo in photos] == list(SAMPLES)
    for photo in photos:
        with Image.open(io.BytesIO(photo.data)) as image:
            assert (image.format, photo.content_type) == ("JPEG", "image/jpeg")
            assert min(image.size) >= 300


def test_a_sample_of_another_size():
    photo = jpeg("coffee", (320, 240))
    with Image.open(io.BytesIO(photo.data)) as image:
        assert image.size == (320, 240)
    assert photo.name == "coffee 320x240"


def test_a_folder_as_it_is(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.webp"):
        (tmp_path / name).write_bytes(name.encode())
    photos = album(tmp_path)
    assert [photo.name for photo in photos] == ["a.jpg", "b.PNG", "c.webp"]
    assert [photo.content_type for photo in photos] == ["image/jpeg", "image/png", "image/webp"]
    assert [photo.data for photo in photos] == [b"a.jpg", b"b.PNG", b"c.webp"]


def test_a_folder_without_photos(tmp_path):
    with pytest.raises(ValueError, match="holds no photo"):
        album(tmp_path)
