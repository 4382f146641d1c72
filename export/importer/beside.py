"""What `config.json` and `preprocessor_config.json` beside a file say: how its images are prepared, and its labels.

Repositories of Hugging Face's hub have them: those of transformers both, those of timm the first, with the checkpoint's
`pretrained_cfg` in it. `export.importer.adding` reads them; what the user states, and the file itself, come first.
"""

import math
from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from zoo.card import LARGEST_SIDE
from zoo.errors import CardError
from zoo.files import read_regular
from zoo.model_card import Normalise

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
_INTERPOLATIONS: dict[int, Interpolation] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_NAMED = {"bilinear": 2, "bicubic": 3, "nearest": 0, "lanczos": 1, "box": 4, "hamming": 5}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, timm's defaults
_SQUASHED_FROM = 384  # ConvNeXt's processor stretches images for inputs of this size on, and crops below
_SQUARES = ("beit", "deit", "flava")  # to these processors, a `size` of one number is a square's, also if they crop


@dataclass(frozen=True)
class Beside:
    """What was found; None or empty where nothing is said.

    Attributes:
        files: names of the files that say it.
        size: height and width of the input in pixels.
        resize: as a recipe has it.
        short_side: for `crop`, in pixels.
        odd_padding: as a recipe has it.
        interpolation: as a recipe has it.
        normalise: of pixels in 0..255.
        labels: class names by class id.
        architecture: timm's name of the network, in a repository of timm's.
        classes: how many there are; 0 where it is not said.
        transformers: the class of the network in transformers, such as `ViTForImageClassification`.
    """

    files: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    resize: Literal["crop", "letterbox", "stretch"] | None = None
    short_side: int | None = None
    odd_padding: Literal["even", "after"] = "even"
    interpolation: Interpolation | None = None
    normalise: Normalise | None = None
    labels: tuple[str, ...] = ()
    architecture: str = ""
    classes: int = 0
    transformers: str = ""

    @property
    def known_from(self) -> str:
        """The files as the report names them."""
        return " and ".join(self.files)


def read_beside(file: Path) -> Beside:
    """Read what lies beside a model file; nothing where there are no such files.

    Beside a folder `onnx`, as the hub's repositories have it, is beside the files in it.

    Raises:
        CardError: one of them is not JSON, or says something that no recipe can say.
    """
    folder = file.absolute().parent
    if folder.name == "onnx" and not any((folder / name).is_file() for name in (CONFIG, PREPROCESSOR)):
        folder = folder.parent
    config, preprocessor = (_read(folder / name) for name in (CONFIG, PREPROCESSOR))
    found = tuple(name for name, said in ((PREPROCESSOR, preprocessor), (CONFIG, config)) if said)
    if not found:
        return Beside()
    try:
        timm = config.get("pretrained_cfg")
        prepared = _of_timm(timm) if isinstance(timm, dict) else _of_transformers(preprocessor)
        classes = config.get("architectures")
        return Beside(
            files=found,
            labels=_labels(config),
            architecture=str(config.get("architecture", "")) if isinstance(timm, dict) else "",
            classes=int(config.get("num_classes") or 0),
            transformers=str(classes[0]) if isinstance(classes, list) and classes else "",
            **prepared,
        )
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise CardError(
            f"{folder}: {' and '.join(found)} cannot be understood ({error!r}): move the file away from there, "
            "and say --size, --resize, --mean, --std and --labels"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(read_regular(path).removeprefix(BOM_UTF8), type=dict[str, Any])
    except (OSError, RecursionError, msgspec.DecodeError) as error:
        raise CardError(
            f"{path} cannot be read as JSON ({error}): correct it, or move the file away from it"
        ) from error


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Return class names by id; none where there are only placeholders (`LABEL_0`)."""
    named = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if isinstance(named, list):
        return tuple(map(str, named))
    by_id = config.get("id2label")
    if not isinstance(by_id, dict) or by_id.keys() != {str(number) for number in range(len(by_id))}:
        return ()
    names = tuple(str(by_id[str(number)]) for number in range(len(by_id)))
    return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else names


def _of_timm(config: dict[str, Any]) -> dict[str, Any]:
    """Read timm's `pretrained_cfg` as its `resolve_data_config` and `create_transform` do, defaults included."""
    _, height, width = config["input_size"]
    share, mode = float(config.get("crop_pct") or 0.875), config.get("crop_mode") or "center"
    said: dict[str, Any] = {
        "size": _size(height, width),
        "interpolation": _interpolation(config.get("interpolation") or "bicubic"),
        "normalise": _normalise(config.get("mean") or _MEAN, config.get("std") or _STD, 1 / 255),
    }
    if mode == "squash" and share == 1:
        said["resize"] = "stretch"
    elif mode == "center" and height == width and share <= 1:
        said |= {"resize": "crop", "short_side": math.floor(height / share)}
    return said


def _of_transformers(said: dict[str, Any]) -> dict[str, Any]:
    """Read `preprocessor_config.json` as transformers' image processors do."""
    if not said:
        return {}
    found = _values_of_transformers(said)
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "").lower()
    size, share = _sides(said, kind), said.get("crop_pct")
    crop = said.get("crop_size") or (said["size"] if isinstance(said.get("size"), int) else None)
    if not said.get("do_resize", bool(size)):
        return found
    short = size.get("shortest_edge")
    if said.get("do_center_crop") and crop is not None:
        height, width = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        if size == {"height": height, "width": width}:  # nothing is left to be cut
            return found | {"size": _size(height, width), "resize": "stretch"}
        if short is not None and share:  # PoolFormer's
            short = int(short / share)
        if short is not None and kind.startswith("levit"):
            short = int(256 / 224 * short)
        if short is not None and short >= max(height, width):
            return found | _cropped(height, width, short)
        return found | {"size": _size(height, width)}
    if short is not None and "longest_edge" not in size:
        if kind.startswith("convnext"):
            share = share or 224 / 256
        if share and short < _SQUASHED_FROM:  # ConvNeXt's
            return found | _cropped(short, short, int(short / share))
        return found | ({"size": _size(short, short), "resize": "stretch"} if share else {})
    if {"height", "width"} <= size.keys():
        keeps = bool(said.get("do_pad") or said.get("keep_aspect_ratio"))  # the image's share stays: all that is known
        return found | {"size": _size(size["height"], size["width"])} | ({} if keeps else {"resize": "stretch"})
    return found


def _sides(said: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return `size` by side, as it is written today; at first it was one number, of a square or of the short side."""
    size = said.get("size")
    if isinstance(size, dict):
        return size
    if not isinstance(size, int):
        return {}
    short = said.get("do_center_crop") or said.get("crop_pct") or kind.startswith("convnext")
    return {"shortest_edge": size} if short and not kind.startswith(_SQUARES) else {"height": size, "width": size}


def _cropped(height: Any, width: Any, short: Any) -> dict[str, Any]:
    """Cut from an image whose short side is `short` pixels; transformers rounds the part before the cut down."""
    size = _size(height, width)
    return {"size": size, "resize": "crop", "short_side": _side(short), "odd_padding": "after"}


def _values_of_transformers(said: dict[str, Any]) -> dict[str, Any]:
    """Read how pixels are resampled and normalised."""
    found: dict[str, Any] = {"interpolation": _interpolation(said.get("resample"))}
    rescales, normalises = said.get("do_rescale", True), said.get("do_normalize", "image_mean" in said)
    factor = float(said.get("rescale_factor", 1 / 255)) if rescales else 1.0
    mean, std = (_three(said["image_mean"]), _three(said["image_std"])) if normalises else ((0.0,) * 3, (1.0,) * 3)
    if rescales and said.get("rescale_offset"):  # EfficientNet's, as the next
        mean = tuple(value + 1 for value in mean)
    if said.get("include_top"):
        std = tuple(one * other for one, other in zip(std, _three(said["image_std"]), strict=True))
    found["normalise"] = _normalise(mean, std, factor)
    if said.get("do_flip_channel_order"):  # MobileViT's
        found["normalise"] = msgspec.structs.replace(found["normalise"], channels="bgr")
    return found


def _interpolation(said: Any) -> Interpolation | None:
    if said is None:
        return None
    number = _NAMED.get(str(said).lower(), said)
    if number not in _INTERPOLATIONS:
        raise ValueError(f"images are resampled by {said!r}, and recipes know {', '.join(_INTERPOLATIONS.values())}")
    return _INTERPOLATIONS[number]


def _normalise(mean: Any, std: Any, factor: float) -> Normalise:
    """From the mean and deviation of pixels that were multiplied by `factor`."""

    def in_bytes(values: Any) -> tuple[float, float, float]:
        red, green, blue = (round(value / factor, 3) for value in _three(values))
        return red, green, blue

    return Normalise(in_bytes(mean), in_bytes(std))


def _three(values: Any) -> tuple[float, ...]:
    """Return one number for each channel, of which one may stand for all."""
    listed = values if isinstance(values, list | tuple) else [values]
    return tuple(float(value) for value in (list(listed) * 3 if len(listed) == 1 else listed))


def _size(height: Any, width: Any) -> tuple[int, int]:
    return _side(height), _side(width)


def _side(value: Any) -> int:
    if not 0 < int(value) <= LARGEST_SIDE:
        raise ValueError(f"a side of {value} pixels")
    return int(value)
