"""A loaded model by name, and small datasets of real photos on disk."""

import functools

import pytest
from PIL import Image

from service.commands.load import load_model
from zoo import catalog
from zoo.catalog import fetch_photos


@pytest.fixture(scope="session")
def loaded(models):
    return functools.cache(lambda name, pixels=None: load_model(name, str(models), pixels=pixels))


@pytest.fixture
def imagenet(tmp_path):
    """Three images of ImageNet's validation set; their names end in their class ids."""
    photos = fetch_photos(progress=False)

    def make(**folders: str):
        for photo, folder in folders.items():
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / folder / f"{photo}.jpg").write_bytes(photos[photo].read_bytes())
        return tmp_path / "data"

    return make


@pytest.fixture
def street(tmp_path):
    """A folder with two sample photos as PNG."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        Image.open(catalog.sample(name)).convert("RGB").save(folder / f"{name}.png")
    return folder
