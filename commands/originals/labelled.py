"""A small labelled set of photos, in COCO's form for `zooserve eval` and in Ultralytics' for its `val`."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from PIL import Image

from commands.originals.differences import Pixels, png
from export.photos import PARITY_PHOTOS
from zoo import catalog

MORE_PHOTOS = ("elephant", "cat", "boat", "airplane", "object_detection_input", "motorcycle_left")
_SIDE = 640
_SHARE_OF_BOX = 0.53  # of an object with keypoints: the area that Ultralytics' `val` takes


class Label(Struct):
    """An object of the truth, in pixels of the photo.

    Attributes:
        box: xyxy.
        polygon: its outline, x and y in turn, for masks.
        keypoints: x, y and visibility in turn, for poses.
        corners: x and y of the four corners in turn, for rotated boxes.
    """

    class_id: int
    box: Sequence[float]
    polygon: Sequence[float] = ()
    keypoints: Sequence[float] = ()
    corners: Sequence[float] = ()


def thirty() -> list[Pixels]:
    """Ten photos as they are, mirrored, and their middle: uint8 [height, width, 3] RGB, the long side 640 pixels.

    Of other sizes, Ultralytics' `val` resamples binary masks to the photo and rounds down, so that their edges shrink.
    """
    others = catalog.fetch_photos(progress=False)
    paths = [catalog.sample(name) for name in PARITY_PHOTOS] + [others[name] for name in MORE_PHOTOS]
    photos = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = _SIDE / max(image.size)
        photo = np.asarray(image.resize((round(image.width * scale), round(image.height * scale))))
        height, width = photo.shape[:2]
        middle = image.crop((image.width // 8, image.height // 8, image.width * 7 // 8, image.height * 7 // 8))
        photos += [photo, np.ascontiguousarray(photo[:, ::-1]), np.asarray(middle.resize((width, height)))]
    return photos


def write(
    folder: Path, photos: Iterable[Pixels], label: Callable[[Pixels], list[Label]], names: Sequence[str], **more: Any
) -> Path:
    """Write photos and labels, and return the path of Ultralytics' description of them.

    Args:
        folder: gets `images/val`, `labels/val`, `instances.json` and `data.yaml`.
        photos: uint8 [height, width, 3] RGB.
        label: says what is on a photo.
        names: of the classes. COCO's category of a class is its id plus 1.
        more: fields of `data.yaml`.
    """
    for part in ("images/val", "labels/val"):
        (folder / part).mkdir(parents=True)
    coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    coco["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    for number, photo in enumerate(photos, start=1):
        height, width = photo.shape[:2]
        (folder / f"images/val/{number}.png").write_bytes(png(photo))
        coco["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        lines = []
        for one in label(photo):
            entry = {"id": len(coco["annotations"]) + 1, "image_id": number} | _coco(one)
            coco["annotations"].append(entry)
            lines.append(_line(one, width, height))
        (folder / f"labels/val/{number}.txt").write_text("\n".join(lines) + "\n")
    (folder / "instances.json").write_text(json.dumps(coco))
    described = {"path": str(folder), "train": "images/val", "val": "images/val", "names": dict(enumerate(names))}
    (folder / "data.yaml").write_text(json.dumps(described | more))  # JSON is YAML
    return folder / "data.yaml"


def _coco(label: Label) -> dict[str, Any]:
    x0, y0, x1, y1 = label.box
    area = (x1 - x0) * (y1 - y0)
    entry: dict[str, Any] = {"category_id": label.class_id + 1, "iscrowd": 0, "area": area}
    entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    if path := label.polygon or label.corners:
        entry["segmentation"] = [list(path)]
    if label.keypoints:
        points = {"keypoints": list(label.keypoints), "num_keypoints": len(label.keypoints) // 3}
        entry |= points | {"area": area * _SHARE_OF_BOX}
    return entry


def _line(label: Label, width: int, height: int) -> str:
    x0, y0, x1, y1 = label.box
    if path := label.polygon or label.corners:
        numbers = [value / side for value, side in zip(path, (width, height) * (len(path) // 2), strict=True)]
    else:
        numbers = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        sides = (width, height, 1) * (len(label.keypoints) // 3)
        numbers += [value / side for value, side in zip(label.keypoints, sides, strict=True)]
    return " ".join([str(label.class_id), *(f"{min(max(value, 0), 2):.9f}" for value in numbers)])
