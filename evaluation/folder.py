"""Reads folders with one folder per class, as ImageNet's; the zoo's own datasets; and photos without a truth."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from zooserve_client.images import images_in

from evaluation.classes import HOW, match, read_mapping
from evaluation.classify import TopK
from evaluation.dataset import DataError, Dataset, Example
from zoo import catalog
from zoo.served_card import ServedCard

_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files


def read_folder(folder: Path, card: ServedCard) -> Dataset:
    """Read a folder of folders, each with the name of its images' class (see `classes.match`).

    A `classes.txt` in it maps other names to classes.

    Raises:
        DataError: a folder's name matches no class, or there are no images.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    mapping = folder / "classes.txt"
    ids = match([path.name for path in folders], card.labels, read_mapping(mapping) if mapping.is_file() else None)
    examples = [
        Example(str(path.relative_to(folder)), path.read_bytes, ids[each.name])
        for each in folders
        for path in images_in(each)
    ]
    return Dataset("folder", examples, TopK(card.labels), (f"{len(folders)} folders matched {HOW}",))


def read_zoo(name: str, card: ServedCard) -> Dataset:
    """Fetch a dataset of the zoo and return its test images, each encoded as PNG.

    Raises:
        DataError: the model does not have its classes, or it has no test images.
        SourceError: it cannot be fetched.
        UnknownModelError: there is no such dataset.
    """
    files = catalog.dataset(name)
    if not {"test_images", "test_labels"} <= files.keys():
        raise DataError(f"the dataset {name} has no files `test_images` and `test_labels`, but {', '.join(files)}")
    images, digits = _idx(files["test_images"], _IMAGES, 3), _idx(files["test_labels"], _LABELS, 1)
    names = sorted({str(digit) for digit in digits.tolist()})
    if not set(names) <= set(card.labels):
        raise DataError(
            f"{card.name} cannot be judged on {name}, whose classes are {', '.join(names)}: the model's are "
            f"{', '.join(card.labels[:5])}, ..."
        )
    ids = {int(label): card.labels.index(label) for label in names}

    def png(number: int) -> bytes:
        data = io.BytesIO()
        Image.fromarray(images[number]).save(data, "PNG", compress_level=1)
        return data.getvalue()

    examples = [
        Example(f"{name} {number}", lambda number=number: png(number), ids[digit])  # type: ignore[misc]  # bound now
        for number, digit in enumerate(digits.tolist())
    ]
    return Dataset("zoo", examples, TopK(card.labels), (catalog.datasets()[name].title + "; the test images",))


def read_photos(path: Path) -> Dataset:
    """Read a photo, or all photos of a folder, without a truth."""
    paths = [path] if path.is_file() else images_in(path)
    return Dataset("photos", [Example(photo.name, photo.read_bytes) for photo in paths], None)


def _idx(path: Path, magic: int, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an IDX file of bytes: a magic number and the shape, big-endian, then the values."""
    found, *shape = np.fromfile(path, ">u4", 1 + dimensions).tolist()
    if found != magic:
        raise DataError(
            f"{path} is not an IDX file of {dimensions} dimensions: its magic number is {found}, not {magic}"
        )
    return np.fromfile(path, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
