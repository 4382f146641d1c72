"""`python -m commands.originals`: compares served models with the checkpoints' own libraries, photo by photo.

It needs the extras `export`, `ultralytics` and `libreyolo`; what is not installed is named and left out.
"""

import inspect
import io
import types
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import transform

from export.families import timm, torchvision, torchvision_detection
from export.pipeline import export_model
from export.ultralytics.library import import_library
from service.commands.load import Loaded, load_model
from service.models.selftest import iou
from service.results import Instance
from service.vision.masks import decode
from service.vision.resize import prepare
from zoo import catalog
from zoo.errors import ExportError
from zoo.model_card import ModelCard, Normalise
from zoo.sources import fetch_all
from zoo.store import Store

_TRANSFORM: Any = transform.GeneralizedRCNNTransform  # which has no types
Pixels = npt.NDArray[Any]
Prepare = Callable[[Pixels], Pixels]
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SIZES = ((641, 640), (1919, 1080), (333, 1000), (1, 4000))
"""Width and height in pixels: sizes that round badly."""
ULTRALYTICS = ("yolov8n", "yolov8n_onnx", "yolo11n_seg")
TORCHVISION_DETECTORS = ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn")
TORCHVISION = ("mobilenet_v2", "vit_b_16")
TIMM = ("mobilenetv3_large_100.ra_in1k",)
_SAME = 0.5  # IoU from which on two boxes of one class are of one object


class Difference(Struct, omit_defaults=True):
    """The largest differences between a served model and its original, over all photos and sizes.

    Attributes:
        pixels: of the prepared image, in grey levels.
        refused: number of images that the original cannot prepare, since a side would have less than a pixel.
        objects: number of objects of the original; `missing` of them were not found.
        score: of an object.
        box: of an object's edge, in pixels of the photo.
        mask: the smallest IoU of an object's masks.
    """

    model: str
    reference: str
    mode: str
    pixels: float
    refused: int = 0
    objects: int | None = None
    missing: int | None = None
    score: float | None = None
    box: float | None = None
    mask: float | None = None


class Found(Struct):
    """An object in the original's answer. `mask` is bool [height, width] of the photo."""

    class_id: int
    score: float
    box: tuple[float, ...]
    mask: npt.NDArray[np.bool_] | None = None


def photos() -> Iterable[Pixels]:
    """The sample photos as they are, and one of them in all of `SIZES`: uint8 [H, W, 3] RGB."""
    for name in PHOTOS:
        yield np.asarray(Image.open(catalog.sample(name)).convert("RGB"))
    photo = Image.open(catalog.sample(PHOTOS[0])).convert("RGB")
    for size in SIZES:
        yield np.asarray(photo.resize(size))


def compare_pixels(card: ModelCard, reference: str, original: Prepare) -> list[Difference]:
    """Compare prepared images with those of an original that returns [H, W, 3] in grey levels."""
    found = []
    for mode in ("exact", "fast"):
        largest, refused = 0.0, 0
        for photo in photos():
            try:
                theirs = original(photo).astype(np.float64)
            except (ValueError, RuntimeError):  # a side of 0 pixels, where a thin image is scaled to fit
                refused += 1
                continue
            ours, _ = prepare(_png(photo), card.recipe, exact=mode == "exact")
            largest = max(largest, float(np.abs(ours - theirs).max()))
        found.append(Difference(card.name, reference, mode, round(largest, 3), refused))
    return found


def compare_ultralytics(names: Iterable[str], folder: Path) -> list[Difference]:
    """Compare models of the zoo with Ultralytics' `predict(rect=False)` on the same files: a letterbox of one size."""
    library = import_library("ultralytics")
    letterbox = import_library("ultralytics.data.augment").LetterBox
    reference = f"ultralytics {library.__version__}"
    cards = [catalog.find(name) for name in names]
    for card in cards:  # all of them first: its `predict` changes classes, after which a checkpoint is not read here
        export_model(card, Store(folder), accepted=(card.licence.code, card.licence.weights))
    rows = []
    for card in cards:
        assert isinstance(card, ModelCard)  # noqa: S101 - the zoo's detectors take images
        size = (card.recipe.height, card.recipe.width)
        compared = compare_pixels(card, reference, partial(_letterboxed, letterbox(size, auto=False)))
        original = library.YOLO(fetch_all(card.sources)["weights"], task=card.task)
        for one in compared:
            served = load_model(card.name, str(folder), pixels="exact" if one.mode == "exact" else "fast")
            _compare_objects(one, served, partial(_ultralytics, original, size))
        rows += compared
    return rows


def _letterboxed(letterbox: Any, photo: Pixels) -> Pixels:
    prepared: Pixels = letterbox(image=photo)
    return prepared


def _ultralytics(original: Any, size: tuple[int, int], photo: Pixels) -> list[Found]:
    (result,) = original.predict(
        cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), imgsz=size, rect=False, retina_masks=True, device="cpu", verbose=False
    )
    boxes = result.boxes
    masks = [None] * len(boxes) if result.masks is None else list(result.masks.data.numpy() > 0)
    rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), masks, strict=True)
    return [Found(class_id, score, tuple(box), mask) for class_id, score, box, mask in rows]


def _compare_objects(difference: Difference, served: Loaded, original: Callable[[Pixels], list[Found]]) -> None:
    """Add the differences of objects to those of pixels."""
    difference.objects, difference.missing, difference.score, difference.box = 0, 0, 0.0, 0.0
    for photo in photos():
        answers: list[Any] = list(served.predictor.predict(_png(photo), served.model, {}).predictions)
        for one in original(photo):
            difference.objects += 1
            same = [other for other in answers if other.class_id == one.class_id and iou(other.box, one.box) >= _SAME]
            if not same:
                difference.missing += 1
                continue
            nearest = max(same, key=lambda other: iou(other.box, one.box))
            answers.remove(nearest)
            difference.score = max(difference.score, abs(nearest.score - one.score))
            difference.box = max(difference.box, *(abs(a - b) for a, b in zip(nearest.box, one.box, strict=True)))
            if one.mask is not None and isinstance(nearest, Instance) and nearest.mask is not None:
                ours = decode(nearest.mask, photo.shape[1], photo.shape[0]) > 0
                shared = float((ours & one.mask).sum() / max(1, (ours | one.mask).sum()))
                difference.mask = min(1.0 if difference.mask is None else difference.mask, round(shared, 5))
        difference.missing += len(answers)  # objects that the original does not have
    difference.score, difference.box = round(difference.score, 6), round(difference.box, 3)


def torchvision_pixels(name: str) -> tuple[ModelCard, str, Prepare]:
    """The transforms of torchvision's weights, or those in its detector, with the sizes of the served graph."""
    card = torchvision_detection.card_for(name) or torchvision.card_for(name)
    assert card is not None  # noqa: S101 - the names above are torchvision's
    weights: Any = get_model_weights(name).DEFAULT
    if card.task == "classify":
        transforms = weights.transforms()
        return card, "torchvision", lambda photo: _grey_levels(transforms(Image.fromarray(photo)), card.normalise)
    own: Any = get_model(name, weights=None, weights_backbone=None).transform
    side = card.recipe.height
    if card.recipe.resize != "stretch":  # one size of the graph: the short side is no longer than the long one
        own = _TRANSFORM(side, side, own.image_mean, own.image_std)

    def padded(photo: Pixels) -> Pixels:
        images = own.eval()([torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255])[0].tensors[0]
        canvas = torch.zeros(3, side, side)  # a batch is padded with zeros to a multiple of 32
        canvas[:, : images.shape[1], : images.shape[2]] = images
        return _grey_levels(canvas, card.normalise)

    return card, "torchvision", padded


def timm_pixels(name: str) -> tuple[ModelCard, str, Prepare]:
    """The transform that timm makes of a checkpoint's configuration."""
    import timm as library  # noqa: PLC0415 - an extra

    card = timm.card_for(name)
    assert card is not None  # noqa: S101 - a name of timm's
    data: Any = library.data
    config: Any = library.get_pretrained_cfg(name)
    own = data.create_transform(**data.resolve_data_config(pretrained_cfg=config.to_dict()))
    return card, f"timm {library.__version__}", lambda photo: _grey_levels(own(Image.fromarray(photo)), card.normalise)


def _grey_levels(x: torch.Tensor, normalise: Normalise) -> Pixels:
    return _in_grey_levels(x.permute(1, 2, 0).numpy(), normalise)


def _in_grey_levels(x: Pixels, normalise: Normalise) -> Pixels:
    levels: Pixels = x * np.array(normalise.std) + np.array(normalise.mean)
    return levels


def libreyolo_pixels() -> Iterable[tuple[ModelCard, str, Prepare]]:
    """What LibreYOLO's models make of an image, one size of each."""
    from export.families import libreyolo  # noqa: PLC0415 - an extra

    for model, detector in libreyolo.DETECTORS.items():
        side = next(iter(detector.build.INPUT_SIZES.values()))
        card = msgspec.structs.replace(_BLANK, name=model, recipe=detector.recipe(side), normalise=detector.normalise)
        yield card, "libreyolo", partial(_libreyolo, detector, side)


_BLANK: ModelCard = catalog.find("yolov8n")  # type: ignore[assignment]


def _libreyolo(detector: Any, side: int, photo: Pixels) -> Pixels:
    get = detector.build._get_preprocess_numpy
    centred = (types.SimpleNamespace(letterbox_pad="center"),)
    own = get(*(centred if inspect.signature(get).parameters else ()))
    x = np.asarray(own(photo, side)[0])
    x = (x[0] if x.ndim == 4 else x).transpose(1, 2, 0)
    normalise = detector.normalise
    return _in_grey_levels(x[..., ::-1] if normalise.channels == "bgr" else x, normalise)


def _png(photo: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG", compress_level=1)
    return file.getvalue()


def compare(only: tuple[str, ...] = ()) -> list[Difference]:
    """Compare all families, or those whose names are given. What is not installed is reported on stderr."""
    rows: list[Difference] = []

    def add(family: str, make: Callable[[], list[Difference]]) -> None:
        if only and family not in only:
            return
        try:
            rows.extend(make())
        except (ImportError, ExportError) as error:
            click.echo(f"left out: {family}: {error}", err=True)

    for name in TORCHVISION:
        add("torchvision", lambda name=name: compare_pixels(*torchvision_pixels(name)))  # type: ignore[misc]
    for name in TIMM:
        add("timm", lambda name=name: compare_pixels(*timm_pixels(name)))  # type: ignore[misc]
    for name in TORCHVISION_DETECTORS:
        add("torchvision_detection", lambda name=name: compare_pixels(*torchvision_pixels(name)))  # type: ignore[misc]
    add("libreyolo", lambda: [row for one in libreyolo_pixels() for row in compare_pixels(*one)])
    with TemporaryDirectory(prefix="zooserve-") as folder:
        add("ultralytics", lambda: compare_ultralytics(ULTRALYTICS, Path(folder)))
    return rows


@click.command()
@click.argument("families", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(families: tuple[str, ...], *, as_json: bool) -> None:
    """Print the largest differences between served models and the originals, of all FAMILIES or of those given."""
    rows = compare(families)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (
        "MODEL",
        "REFERENCE",
        "PIXELS ARE",
        "GREY LEVELS",
        "OBJECTS",
        "MISSING",
        "SCORE",
        "BOX",
        "MASK IOU",
    ):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            *("" if (value := getattr(row, name)) is None else str(value) for name in row.__struct_fields__[:3]),
            *("" if (value := getattr(row, name)) is None else f"{value:g}" for name in row.__struct_fields__[3:]),
        )
    Console(highlight=False, width=140, soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
