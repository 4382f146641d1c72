"""COCO's file of instances is found in the layouts in which datasets are published, and nowhere by a guess."""

import pytest

from evaluation.coco_layout import find_instances
from evaluation.dataset import DataError
from evaluation.recognise import recognise


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Make empty files, and work in their folder."""
    monkeypatch.chdir(tmp_path)

    def make(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(b"")

    return make


@pytest.mark.parametrize(
    ("files", "data", "images", "annotations"),
    [
        (["d/a.jpg", "d/instances.json"], "d", "d", "d/instances.json"),
        (["d/a.JPG", "d/instances_val.json"], "d", "d", "d/instances_val.json"),
        (["d/a.jpg", "d/_annotations.coco.json"], "d", "d", "d/_annotations.coco.json"),
        (["d/a.jpg", "d/instances.json", "d/instances_old.json"], "d", "d", "d/instances.json"),
        (["d/images/a.jpg", "d/instances.json"], "d/images", "d/images", "d/instances.json"),
        (["d/images/a.jpg", "d/instances.json"], "d", "d/images", "d/instances.json"),
        (["d/images/a.jpg", "d/annotations/instances_default.json"],
         "d", "d/images", "d/annotations/instances_default.json"),
        (["c/val2017/a.jpg", "c/annotations/instances_val2017.json", "c/annotations/instances_train2017.json"],
         "c/val2017", "c/val2017", "c/annotations/instances_val2017.json"),
        (["c/images/val2017/a.jpg", "c/annotations/instances_val2017.json", "c/annotations/instances_train2017.json"],
         "c/images/val2017", "c/images/val2017", "c/annotations/instances_val2017.json"),
        (["c/val2017/a.jpg", "c/annotations/instances_val2017.json", "c/annotations/instances_train2017.json"],
         "c", "c/val2017", "c/annotations/instances_val2017.json"),
        (["c/val2017/a.jpg", "c/annotations/instances_val2017.json"],
         "c/", "c/val2017", "c/annotations/instances_val2017.json"),
    ],
)  # fmt: skip
def test_the_annotations_are_found_in_each_layout(lay, files, data, images, annotations):
    lay(*files)
    found = find_instances(data)
    assert (str(found.images), str(found.annotations)) == (images, annotations)
    assert recognise(data, None) == "coco"


@pytest.mark.parametrize(
    ("files", "data", "form"),
    [
        (["d/a.jpg"], "d", "photos"),
        (["d/a.jpg", "d/notes.json"], "d", "photos"),
        (["d/images/a.jpg", "d/annotations/a.png"], "d", "voc"),
        (["d/cats/a.jpg", "d/dogs/a.jpg"], "d", "folder"),
    ],
)
def test_other_datasets_are_still_recognised(lay, files, data, form):
    lay(*files)
    assert find_instances(data) is None
    assert recognise(data, None) == form


@pytest.mark.parametrize(
    ("files", "data"),
    [
        (["d/a.jpg", "d/instances_a.json", "d/instances_b.json"], "d"),
        (["c/test/a.jpg", "c/annotations/instances_train.json", "c/annotations/instances_val.json"], "c/test"),
        (
            ["c/val/a.jpg", "c/train/a.jpg", "c/annotations/instances_train.json", "c/annotations/instances_val.json"],
            "c",
        ),
    ],
)
def test_ambiguous_annotations_are_named(lay, files, data):
    lay(*files)
    with pytest.raises(DataError, match=r"instances_\w+\.json, .*instances_\w+\.json.*--annotations"):
        find_instances(data)


def test_photos_that_are_attacked_need_no_instances(lay):
    lay("d/a.jpg", "d/instances.json")
    assert recognise("d", None, attacked=True) == "photos"
