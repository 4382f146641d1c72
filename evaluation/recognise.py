"""Recognises a dataset's format by its files, and checks that it suits the model. Called by `zooserve eval`."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from zooserve_client.images import IMAGE_SUFFIXES

from evaluation.coco import read_coco
from evaluation.coco_layout import find_instances
from evaluation.dataset import DataError, Dataset
from evaluation.folder import read_folder, read_photos, read_zoo
from evaluation.voc import LAYOUTS, layout, read_voc
from zoo import catalog
from zoo.card import Task
from zoo.served_card import ServedCard

Format = Literal["folder", "coco", "voc", "zoo", "photos"]
FORMATS: tuple[Format, ...] = ("folder", "coco", "voc", "zoo", "photos")
_SHAPES = (
    "expected a folder with one folder of images per class; a folder of images with COCO's instances.json in it or "
    "next to it, or with --annotations, such a file or a folder of masks; a folder with "
    f"{' or '.join('/ and '.join(pair) + '/' for pair in LAYOUTS)}; or a dataset of the zoo"
)


def recognise(data: str, annotations: Path | None, *, attacked: bool = False) -> Format:
    """Return the format of `data`.

    Args:
        data: path of a folder or a photo, or the name of a dataset of the zoo.
        annotations: COCO's file of instances or a folder of masks, if given.
        attacked: whether photos without a truth are accepted; then instances are not looked for.

    Raises:
        DataError: the format is not known, or there are several files of instances.
    """
    path = Path(data)
    if annotations is not None:
        return "voc" if annotations.is_dir() else "coco"
    if not path.exists():
        labelled = [name for name, each in catalog.datasets().items() if "test_labels" in each.files]
        if data in labelled:
            return "zoo"
        raise DataError(f"{data} does not exist, and is not a dataset of the zoo ({', '.join(labelled)})")
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return "photos"
        raise DataError(f"{data} is a file: give the folder of images, and this as --annotations, if that is it")
    if not attacked and find_instances(path) is not None:
        return "coco"
    if layout(path) is not None:
        return "voc"
    inside = [one for one in path.iterdir() if not one.name.startswith(".")]
    if any(one.is_file() and one.suffix.lower() in IMAGE_SUFFIXES for one in inside):
        return "photos"
    if any(one.is_dir() for one in inside):
        return "folder"
    raise DataError(f"{data} holds nothing that is known: {_SHAPES}")


def read(data: str, card: ServedCard, form: Format, annotations: Path | None) -> Dataset:
    """Read a dataset for a model.

    Raises:
        ZooError: it is not of that format, does not fit the model, cannot be fetched, or is empty.
    """
    instances = any(output.name == "prototypes" for output in card.outputs)
    fitting: dict[Format, tuple[Task, bool]] = {
        "folder": ("classify", True),
        "zoo": ("classify", True),
        "coco": ("segment" if instances else card.task if card.task in {"pose", "obb"} else "detect", True),
        "voc": ("segment", not instances),
    }
    task, fits = fitting.get(form, (card.task, True))
    if task != card.task or not fits:
        good = {
            "classify": "one folder per class",
            "detect": "COCO's instances",
            "pose": "COCO's person_keypoints",
            "obb": "COCO's instances, whose `segmentation` has the corners",
        }.get(card.task, "COCO's instances" if instances else "masks")
        raise DataError(f"{card.name} ({card.task}) cannot be judged on {data} (format {form}): it wants {good}")
    path = Path(data)
    if form == "zoo":
        dataset = read_zoo(data, card)
    elif not path.exists():
        raise DataError(f"{data} does not exist")
    elif form == "coco":
        dataset = _read_coco(path, annotations, card)
    elif form == "voc":
        folders = (path, annotations) if annotations is not None else layout(path)
        if folders is None:
            raise DataError(f"{data} has no folders of images and masks: {_SHAPES}")
        dataset = read_voc(*folders, card)
    elif form == "folder":
        dataset = read_folder(path, card)
    else:
        dataset = read_photos(path)
    if not dataset.examples:
        raise DataError(f"{data} holds no images: expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    return dataset


def _read_coco(path: Path, annotations: Path | None, card: ServedCard) -> Dataset:
    """Read COCO's instances. If their file is not given, it is looked for, and a note names it."""
    if annotations is not None:
        return read_coco(path, annotations, card)
    found = find_instances(path)
    if found is None:
        raise DataError(f"{path} has no COCO instances.json in it or next to it: name it with --annotations")
    dataset = read_coco(found.images, found.annotations, card)
    return replace(dataset, notes=(f"instances of {found.annotations}, images in {found.images}", *dataset.notes))
