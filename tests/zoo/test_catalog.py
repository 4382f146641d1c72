"""The zoo's own cards, photos and datasets: valid, consistent, and really to be had."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from zoo import catalog
from zoo.errors import SourceError, UnknownModelError
from zoo.files import sha256_of
from zoo.labels import read_labels
from zoo.model_card import ModelCard, Source
from zoo.sources.mirror import path_in_mirror

DIGITS = [name for name in catalog.samples() if name.startswith("digit_")]


@pytest.mark.parametrize("name", [card.name for card in catalog.cards() if isinstance(card, ModelCard)])
def test_a_card_is_consistent(name):
    card = catalog.find(name)
    labels = read_labels(card.labels)
    assert card.expect, "a model is published only if it finds what is to be seen on a photo"
    for expected in card.expect:
        assert expected.photo in catalog.samples()
        assert expected.label in labels
        assert (expected.area is not None) == (card.task == "segment")


def test_each_task_has_one_default():
    assert sorted(card.task for card in catalog.cards() if card.task_default) == ["classify", "detect", "segment"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenetv2", r"no model 'mobilenetv2'\. Did you mean mobilenet_v2"),
        ("yolo4_tiny", "Did you mean yolov4_tiny"),
        ("../cards/lenet5", "`zooserve list` shows all"),
        ("", "no model ''"),
    ],
)
def test_an_unknown_model_suggests_close_ones(name, message):
    with pytest.raises(UnknownModelError, match=message):
        catalog.find(name)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "china", "flower"])
def test_a_photo_matches_its_entry(name):
    entry = catalog.samples()[name]
    path = catalog.sample(name)
    assert sha256_of(path) == entry.source.sha256
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert f"{image.width} x {image.height}" in entry.shows


@pytest.mark.parametrize("name", DIGITS)
def test_a_digit_matches_its_name(name):
    place = catalog.samples()[name].image
    files = catalog.dataset(place.dataset)
    assert np.fromfile(files["test_labels"], np.uint8, offset=8)[place.item] == int(name.removeprefix("digit_"))
    with Image.open(catalog.sample(name)) as image:
        pixels = np.asarray(image)
    all_pixels = np.fromfile(files["test_images"], np.uint8, offset=16).reshape(-1, 28, 28)
    np.testing.assert_array_equal(pixels, all_pixels[place.item])
    before = catalog.sample(name).stat()
    assert catalog.sample(name).stat() == before  # it is not written again: the cache may be one that is only read


def test_mnist_is_complete():
    files = catalog.dataset("mnist")
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert sizes == {
        "train_images": 16 + 60_000 * 784,
        "train_labels": 8 + 60_000,
        "test_images": 16 + 10_000 * 784,
        "test_labels": 8 + 10_000,
    }


def test_unknown_photos_and_datasets_are_errors():
    with pytest.raises(UnknownModelError, match=r"no sample photo 'cofee'\. Did you mean coffee\?"):
        catalog.sample("cofee")
    with pytest.raises(UnknownModelError, match=r"no dataset 'cifar'\. There are mnist"):
        catalog.dataset("cifar")


def test_a_photo_is_had_from_a_mirror_that_lacks_others_of_its_package(tmp_path, monkeypatch):
    here, gone = (
        Source(package="photos==1", member=member, sha256=hashlib.sha256(b"photo").hexdigest())
        for member in ("here.png", "gone.png")
    )
    known = {name: catalog.Sample("?", "?", "?", source) for name, source in (("here", here), ("gone", gone))}
    monkeypatch.setattr(catalog, "samples", lambda: known)
    for variable, value in (("PIP_INDEX_URL", "http://127.0.0.1:9"), ("ZOOSERVE_CACHE", str(tmp_path / "cache"))):
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("ZOOSERVE_MIRROR", str(tmp_path / "mirror"))
    there = tmp_path / "mirror" / path_in_mirror(here)
    there.parent.mkdir(parents=True)
    there.write_bytes(b"photo")
    assert catalog.sample("here") == there
    with pytest.raises(SourceError, match=r"the mirror has no .*gone\.png"):
        catalog.sample("gone")


def test_an_image_beyond_the_file_is_an_error(monkeypatch):
    beyond = catalog.Sample("?", "?", "?", image=catalog.DatasetImage("mnist", "test_images", 10_000))
    monkeypatch.setattr(catalog, "samples", lambda: {"digit": beyond})
    with pytest.raises(SourceError, match="holds no image number 10000"):
        catalog.sample("digit")
