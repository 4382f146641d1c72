"""Finds COCO's file of instances in the usual layouts of datasets. Called by `recognise`.

- `instances.json`, `instances_*.json` or Roboflow's `_annotations.coco.json` in the folder of images or its parent;
- `annotations/instances_val2017.json` next to `val2017/` or `images/val2017/` (COCO), or next to `images/` (CVAT).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from zooserve_client.images import IMAGE_SUFFIXES

from evaluation.dataset import DataError

_NAMES = ("instances.json", "_annotations.coco.json")


class Layout(NamedTuple):
    """A folder of images and the file of their instances."""

    images: Path
    annotations: Path


def find_instances(data: str | Path) -> Layout | None:
    """Find the instances of the images in `data`, which is their folder or its parent.

    Returns:
        None if there are none.

    Raises:
        DataError: several files are possible.
    """
    folder = Path(os.path.abspath(data))  # noqa: PTH100 - does not follow links, whose own folder is searched
    if _holds_images(folder):
        files = _of_images(folder)
        return Layout(_short(folder), _short(files)) if files else None
    found = []
    for file in _instances((folder, folder / "annotations")):
        name = file.stem.removeprefix("instances_")
        images = next(
            (one for one in (folder / name, folder / "images" / name, folder / "images") if one.is_dir()), None
        )
        if images is not None:
            found.append(Layout(_short(images), _short(file)))
    if len(found) > 1:
        raise DataError(
            f"{data} holds several datasets: {_listed(one.annotations for one in found)}. Give the folder of images, "
            f"such as {found[0].images}, or --annotations"
        )
    return found[0] if found else None


def _of_images(folder: Path) -> Path | None:
    """Return the file of instances for a folder of images."""
    above, name = folder.parent, f"instances_{folder.name}.json"
    named = (above / "annotations" / name, above / name, above.parent / "annotations" / name)
    among = _instances((folder,))
    nearby = _instances((above / "annotations", above))
    for files in (among, [one for one in named if one.is_file()][:1], nearby):
        if len(files) > 1:
            raise DataError(f"{folder}: several files may have its instances: {_listed(files)}. Say --annotations")
        if files:
            return files[0]
    return None


def _instances(folders: Iterable[Path]) -> list[Path]:
    """Return the files of instances in folders. In a folder with `instances.json`, the others are ignored."""
    found: list[Path] = []
    for folder in folders:
        exact = [folder / name for name in _NAMES if (folder / name).is_file()]
        found += exact[:1] or sorted(one for one in folder.glob("instances_*.json") if one.is_file())
    return found


def _holds_images(folder: Path) -> bool:
    return any(one.suffix.lower() in IMAGE_SUFFIXES and not one.name.startswith(".") for one in folder.iterdir())


def _short(path: Path) -> Path:
    """Return a path as a user would write it: relative if it is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(str(_short(file)) for file in files)
