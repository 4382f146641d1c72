"""COCO's `instances_*.json` and `person_keypoints_*.json`: objects, their masks and poses. Called by `recognise`.

pycocotools does not check such a file, so everything that it would misread is corrected or refused here. Missing values
are computed, and `average_precision` makes new ids. Notes list what was left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from evaluation.average_precision import MeanAveragePrecision, Object, as_evaluated, options_of
from evaluation.classes import match
from evaluation.dataset import DataError, Dataset, Example, Judge
from evaluation.keypoints import check_names, keypoints_to_judge, read_keypoints
from evaluation.outlines import Outline, read_outline
from evaluation.rotated import RotatedAveragePrecision
from zoo.served_card import ServedCard

_Id = int | float | str
_Flag = int | float | bool | None
_Side = Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] | None
_Box = Annotated[list[float], Meta(max_length=4)]
_SHOWN = 5  # names that a message lists


class _Image(Struct):
    id: _Id
    file_name: str
    width: _Side = None
    height: _Side = None


class _Category(Struct):
    id: _Id
    name: str
    keypoints: list[str] = []


class _Annotation(Struct):
    image_id: _Id
    category_id: _Id
    bbox: _Box | None = None
    area: float | None = None
    iscrowd: _Flag = 0
    ignore: _Flag = 0
    segmentation: Any = None
    keypoints: list[float] | None = None


class Instances(Struct):
    """The fields of a COCO `instances_*.json` that are read. The annotations' own ids are not needed."""

    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_coco(folder: Path, annotations: Path, card: ServedCard) -> Dataset:
    """Read COCO's instances and match their categories' names to the model's labels.

    Categories that the model does not have, annotations of images that the file does not list, and boxes without an
    area are left out of the evaluation; notes list them. Several categories with one name are one class.

    Args:
        folder: of the images.
        annotations: `instances_*.json`.
        card: of the model.

    Raises:
        DataError: it is not such a file, it contradicts itself, or it has no object of the model's classes.
    """
    try:
        data = annotations.read_bytes().removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as Windows' programs write
        instances = msgspec.json.decode(data, type=Instances)
    except msgspec.DecodeError as error:
        raise DataError(f"{annotations} is not a COCO file of instances: {error}") from error
    try:
        images = _images(instances.images)
        classes, absent = _classes(instances.categories, card)
        _check_keypoints(instances, classes, card)
        objects, notes = _objects(instances.annotations, images, classes, card)
    except DataError as error:
        raise DataError(f"{annotations}: {error}") from error
    notes.insert(0, _selection(card))
    if absent:
        notes.append(f"left out, since the model does not know them: {', '.join(absent)}")
    order = sorted(images, key=lambda one: (isinstance(one, str), one))  # numbers before texts
    examples = [Example(images[one].file_name, (folder / images[one].file_name).read_bytes, one) for one in order]
    sizes = {
        one: (image.width and int(image.width), image.height and int(image.height)) for one, image in images.items()
    }
    rotated = card.task == "obb"
    judge: Judge = RotatedAveragePrecision(objects, card) if rotated else MeanAveragePrecision(objects, sizes, card)
    return Dataset("coco", examples, judge, tuple(notes))


def _selection(card: ServedCard) -> str:
    """Say how objects are selected, and what would be needed for what is published."""
    used = as_evaluated(card).nms_options
    said = ", ".join(f"{name} {value:g}" for name, value in options_of(card).items())
    if not card.nms:
        return said
    said += f", {used.candidates} candidates, {'several labels' if used.multi_label else 'one label'} each"
    if card.evaluation.multi_label and not used.multi_label:
        said += f" (published with several: zooserve export {card.name} --class-scores)"
    return said


def _key(name: _Id) -> _Id:
    """Return an id as an integer if possible: some programs write it as a text or a float in some places."""
    whole = name.isdecimal() if isinstance(name, str) else name == int(name)
    return int(name) if whole else name


def _images(listed: Sequence[_Image]) -> dict[_Id, _Image]:
    """Return the images by id."""
    images: dict[_Id, _Image] = {}
    files: dict[str, _Id] = {}
    for image in listed:
        name = _key(image.id)
        if (other := images.setdefault(name, image)) is not image:
            raise DataError(
                f"the image id {name} is that of {other.file_name} and of {image.file_name}; give each its own"
            )
        if files.setdefault(image.file_name, name) != name:
            raise DataError(
                f"{image.file_name} is listed twice, as image {files[image.file_name]} and {name}; join them"
            )
    return images


def _classes(listed: Sequence[_Category], card: ServedCard) -> tuple[dict[_Id, int | None], list[str]]:
    """Return class ids by category id, None if the model has no such class, and the names of those categories."""
    names: dict[_Id, str] = {}
    for category in listed:
        name = _key(category.id)
        if names.setdefault(name, category.name) != category.name:
            raise DataError(
                f"the category id {name} is that of {names[name]!r} and of {category.name!r}; give each its own"
            )
    classes: dict[_Id, int | None] = {}
    for name, label in names.items():
        try:
            classes[name] = match([label], card.labels)[label]
        except DataError:
            classes[name] = None
    absent = [names[name] for name, class_id in classes.items() if class_id is None]
    if len(absent) == len(classes):
        raise DataError(
            f"{card.name} knows none of the {len(absent)} categories ({', '.join(absent[:_SHOWN])}, ...); its own are "
            f"{', '.join(card.labels[:_SHOWN])}, ..."
        )
    return classes, absent


def _check_keypoints(instances: Instances, classes: Mapping[_Id, int | None], card: ServedCard) -> None:
    """Raise `DataError` if a model for poses cannot be judged by the keypoints of a file."""
    points = keypoints_to_judge(card)
    if points is None:
        return
    for category in instances.categories:
        if classes[_key(category.id)] is not None:
            check_names(category.keypoints, points, f"the category {category.name!r}")
    if not any(one.keypoints for one in instances.annotations):
        raise DataError("holds no keypoints; COCO's are in person_keypoints_*.json")


def _objects(
    listed: Sequence[_Annotation],
    images: Mapping[_Id, _Image],
    classes: Mapping[_Id, int | None],
    card: ServedCard,
) -> tuple[list[Object], list[str]]:
    """Return the objects of the model's classes, and notes about what was left out or looks wrong."""
    objects = []
    strays = empty = outside = 0
    for number, one in enumerate(listed):
        where = f"annotations[{number}]"
        image, category = images.get(_key(one.image_id)), _key(one.category_id)
        if image is None:
            strays += 1
            continue
        if category not in classes:
            known = ", ".join(map(str, list(classes)[:_SHOWN]))
            raise DataError(f"{where} has the category_id {category}; the file's categories are {known}, ...")
        class_id = classes[category]
        if class_id is None:
            continue
        outline = read_outline(one.segmentation, where)
        box = _box(one.bbox, outline, where)
        if outline is None and card.task == "segment":
            raise DataError(f"{where} has no `segmentation`, and {card.name} is judged by its masks")
        if box is not None and not (box[2] > 0 and box[3] > 0):
            empty += 1
            continue
        outside += box is not None and _leaves(box, image)
        # Programs that do not compute the area write 0.
        area = one.area if one.area and one.area > 0 else None
        objects.append(
            Object(
                _key(one.image_id),
                class_id,
                box,
                area,
                bool(one.iscrowd),
                bool(one.ignore),
                outline,
                where,
                None if card.keypoints is None else read_keypoints(one.keypoints, card.keypoints, where),
            )
        )
    if strays and strays == len(listed):
        raise DataError(
            f"none of the {strays} annotations is of an image that the file lists: the first has the image_id "
            f"{listed[0].image_id!r}, the first image the id {next(iter(images), None)!r}"
        )
    if not objects:
        raise DataError(f"holds no object of a class that {card.name} knows, so there is nothing to find")
    counts = (
        (strays, "annotations left out: the file does not list their images"),
        (empty, "annotations left out: their boxes have no area, so nothing could match them"),
        (outside, "boxes reach out of their images: `bbox` is [x, y, width, height] in pixels"),
    )
    return objects, [f"{count} {text}" for count, text in counts if count]


def _box(given: list[float] | None, outline: Outline | None, where: str) -> tuple[float, float, float, float] | None:
    """Return the box as x, y, width, height; None if it must be computed from run lengths, which needs the image."""
    if given:
        if len(given) != 4 or min(given[2:]) < 0:
            raise DataError(f"{where} has the bbox {given}; expected [x, y, width, height], which are not negative")
        return given[0], given[1], given[2], given[3]
    if outline is None:
        raise DataError(f"{where} has neither `bbox` nor `segmentation`: say where the object is")
    return outline.box


def _leaves(box: tuple[float, float, float, float], image: _Image) -> bool:
    """Return whether a box extends more than a pixel beyond its image."""
    x, y, width, height = box
    return min(x, y) < -1 or x + width > (image.width or x + width) + 1 or y + height > (image.height or y + height) + 1
