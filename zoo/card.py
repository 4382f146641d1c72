"""The common parts of a model's two cards: validated types, and functions that read the files.

`zoo.model_card` has the card that a person writes, `zoo.served_card` the one that `export` writes next to `model.onnx`.
"""

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from zoo.errors import CardError
from zoo.files import read_regular

T = TypeVar("T")
LARGEST_SIDE = 4096
"""The largest width or height of a graph's input, in pixels."""
LARGEST_GRAPH = 1 << 31
"""The largest size of a model.onnx in bytes, which is protobuf's own limit."""
Task = Literal["classify", "detect", "segment", "pose", "obb"]
DType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "string",
]  # fmt: skip
# `$` alone also matches before a line break at the end.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")
Name = Annotated[str, Meta(pattern=_NAME.pattern)]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,9}$(?!\n)")]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Byte = Annotated[int, Meta(ge=0, le=255)]
Share = Annotated[float, Meta(ge=0, le=1)]


class FieldError(CardError, ValueError):
    """A struct was created with an invalid value of a field."""


class Checked(Struct, frozen=True):
    """Base class of the structs of cards. A subclass that overrides `__post_init__` must call this one first."""

    def __post_init__(self) -> None:
        """Check every field against its type.

        Raises:
            FieldError: the message has the field, its value and what is expected.
        """
        for name, kind in _fields(type(self)):
            value = getattr(self, name)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                raise FieldError(f"{type(self).__name__}: {error} - `{name}` is {value!r:.200}") from error


@functools.cache
def _fields(kind: type[Checked]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(kind))


class Licence(Checked, frozen=True, forbid_unknown_fields=True):
    """SPDX identifiers of the licence of the network's code and of its trained weights."""

    code: str
    weights: str


_INTERPOLATIONS = {
    "pillow": ("bilinear", "bicubic", "lanczos"),
    "opencv": ("bilinear", "bicubic"),
    "torch": ("bilinear",),
    "darknet": ("bilinear",),
}
"""By `resampling`: what this project does as that library."""


class Recipe(Checked, frozen=True, forbid_unknown_fields=True):
    """How an image becomes the graph's input, uint8 [height, width, 3] RGB. `zoo.recipe` implements it.

    Attributes:
        height, width: of the graph's input, in pixels.
        resize: `crop` scales the short side to `short_side`, then cuts the centre; `letterbox` scales the whole image
            to fit, centres it and pads with `pad`; `letterbox_top_left` places it in the top left corner instead;
            `stretch` ignores the aspect ratio.
        short_side: for `crop`, in pixels.
        interpolation: `bilinear`, `bicubic` (`pillow` and `opencv` only), or `lanczos` (`pillow` only; by which rembg
            also resizes the mask of a salient object to the photo, and so does exact mode).
        pad: RGB colour of a letterbox's border.
        resampling: whose. `pillow` is antialiased. The others are not, and do not crop: `opencv` is OpenCV's `resize`
            (Ultralytics, YOLOX, PaddleDetection), `torch` is `interpolate` with pixel centres at half-integers
            (torchvision's detectors), and `darknet` maps the centres of the corner pixels to each other.
        rounding: of the scaled size of a letterboxed image; `floor` is that of torchvision's detectors and of YOLOX.
        odd_padding: where a centred letterbox has an odd number of lines to pad, or a crop as many to cut: `even` gives
            the side before the image an even half, as Python's `round` and torchvision do; `after` has the odd line
            after it, as Ultralytics and transformers do.
        one_scale: whether a letterbox's boxes return to the image by one scale for both axes, that before the scaled
            size is rounded, as YOLOX's do. It moves the far edges of a photo's boxes by up to a pixel of the input.
    """

    height: Side
    width: Side
    resize: Literal["crop", "letterbox", "letterbox_top_left", "stretch"]
    short_side: Side | None = None
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    pad: tuple[Byte, Byte, Byte] = (114, 114, 114)
    resampling: Literal["pillow", "opencv", "torch", "darknet"] = "pillow"
    rounding: Literal["nearest", "floor"] = "nearest"
    odd_padding: Literal["even", "after"] = "even"
    one_scale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize == "crop" and self.resampling != "pillow":
            raise ValueError(f'`resampling = "{self.resampling}"` does not crop: use `pillow`, or another `resize`')
        if self.interpolation not in (known := _INTERPOLATIONS[self.resampling]):
            able = " or ".join(f"`{name}`" for name, kinds in _INTERPOLATIONS.items() if self.interpolation in kinds)
            raise ValueError(
                f'`resampling = "{self.resampling}"` is {" or ".join(known)} only: use {able} for {self.interpolation}'
            )
        if (self.resize == "crop") != (self.short_side is not None):
            raise ValueError('`short_side` belongs to `resize = "crop"`, and to it alone')
        if self.short_side is not None and self.short_side < max(self.height, self.width):
            raise ValueError("`short_side` is smaller than the crop")


class Keypoints(Checked, frozen=True, forbid_unknown_fields=True):
    """The points that a pose consists of.

    Attributes:
        names: of the points, in the order of the network's answer.
        skeleton: pairs of points that are connected where a pose is drawn, as indices from 0.
        sigmas: of COCO's object keypoint similarity, one per point: how far annotators differ, as a share of the
            object's size. Without them, `eval` cannot judge the model.
    """

    names: Annotated[tuple[str, ...], Meta(min_length=1, max_length=1000)]
    skeleton: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[Annotated[float, Meta(gt=0)], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.names)) < len(self.names):
            raise ValueError("two keypoints have one name")
        if self.sigmas and len(self.sigmas) != len(self.names):
            raise ValueError(f"there are {len(self.sigmas)} sigmas for {len(self.names)} keypoints")
        if not all(0 <= end < len(self.names) for line in self.skeleton for end in line):
            raise ValueError(f"the skeleton names points beyond 0 to {len(self.names) - 1}")


class Nms(Checked, frozen=True, forbid_unknown_fields=True):
    """How objects are selected among a detector's candidates. A request's options take the place of the first three.

    Attributes:
        score_threshold: candidates with a lower score are left out.
        iou_threshold: of two boxes that overlap more than this, the better stays. Of no effect without NMS.
        max_detections: at most this many objects, best first.
        class_agnostic: whether boxes of different classes suppress each other too.
        multi_label: whether a candidate is an object of every class whose score suffices, not of its best one only. It
            needs the output `class_scores` (`zooserve export --class-scores`).
        candidates: at most this many, best first, are left to non-maximum suppression.
        clip_first: whether boxes are clipped to the image before they suppress each other, and not after. Of boxes that
            reach beyond its edges, others stay.
    """

    score_threshold: Share = 0.25
    iou_threshold: Share = 0.45
    max_detections: Annotated[int, Meta(ge=1, le=1000)] = 100
    class_agnostic: bool = False
    multi_label: bool = False
    candidates: Annotated[int, Meta(ge=1, le=30000)] = 1000
    clip_first: bool = False


USUAL = Nms()
"""How objects are selected for requests, where neither card nor family says it."""
EVALUATION = Nms(score_threshold=0.001, iou_threshold=0.65, max_detections=100)
"""How objects are selected in published evaluations, where neither card nor family says it."""


class Bound(Checked, frozen=True, forbid_unknown_fields=True):
    """The largest allowed difference between a variant of lower precision and fp32, over the calibration photos.

    Attributes:
        agreement: the smallest share of fp32's confident answers that the variant must also give: the same top-1
            class, or an object of the same class with an IoU of at least 0.5. For masks: the mean IoU with fp32's.
        shift: the largest median change of a confident answer's score (for masks: of a class's share of the image).
    """

    agreement: Share = 0.9
    shift: Share = 0.1


class TaskOnly(Struct, frozen=True):
    """The field that distinguishes models for images from graphs that take tensors."""

    task: str = ""


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of a model."""
    return _NAME.search(text) is not None


def read_checked(path: Path, decode: Callable[[bytes], T], kinds: Iterable[type[Struct]]) -> T:
    """Read and decode a file.

    Args:
        path: of a regular file.
        decode: may raise msgspec's errors.
        kinds: structs whose fields are suggested for a misspelt one.

    Raises:
        CardError: the message has the file and the invalid field.
    """
    try:
        return decode(read_regular(path))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise CardError(f"{path}: it is nested too deeply") from error
    # A ValidationError is a DecodeError and has the field as `$.path`; encodings and numbers cause a ValueError.
    except (msgspec.DecodeError, ValueError) as error:
        raise CardError(f"{path}: {error}{_suggestion(str(error), kinds)}") from error


def _suggestion(error: str, kinds: Iterable[type[Struct]]) -> str:
    """Return a suggestion for an unknown field, or an empty text."""
    unknown = re.search("unknown field `(.+)`", error)
    known = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    near = difflib.get_close_matches(unknown[1], known, 1) if unknown else []
    return f"; is `{near[0]}` meant?" if near else ""
