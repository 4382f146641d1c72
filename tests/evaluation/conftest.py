"""A loaded model by name, small datasets of real photos on disk, and the judge of a COCO file."""

import functools
import json

import msgspec
import pytest
from PIL import Image

from evaluation.coco import read_coco
from service.commands.load import load_model
from service.results import Detection, ImageSize, Instance, Result
from tests.evaluation.coco_files import BOXES, SIDE, mask_of
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


@pytest.fixture
def judge(loaded, tmp_path):
    """Judge answers to such a file: by default every object is answered, in its place."""

    def make(file: dict, task: str = "detect", *, answers=BOXES, sizes=None):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(file))
        card = msgspec.structs.replace(loaded("yolov4_tiny").model.card, task=task, labels=("person", "cat", "dog"))
        dataset = read_coco(tmp_path, path, card)
        for example in dataset.examples:
            found = [
                Instance(i, name, 0.9, (x, y, x + w, y + h), 0.1, mask_of(x, y, w, h))
                if task == "segment"
                else Detection(i, name, 0.9, (x, y, x + w, y + h))
                for i, (name, (x, y, w, h)) in enumerate(answers.items(), start=1)
            ]
            size = ImageSize(*(sizes or {}).get(example.truth, (SIDE, SIDE)))
            dataset.judge.add(dataset.judge.compare(example, Result("m", "1", task, size, found)))
        scores = dataset.judge.scores()
        return {one.name: one.value for one in scores.measures}, scores, dataset

    return make
