"""The card that `export` writes next to `model.onnx`: `card.json`.

It has everything that `service` needs to serve the graph and to test its answers.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from zoo.card import (
    EVALUATION,
    LARGEST_GRAPH,
    Bound,
    Checked,
    DType,
    Keypoints,
    Licence,
    Name,
    Nms,
    Recipe,
    Sha256,
    Task,
    TaskOnly,
    Version,
    read_checked,
)
from zoo.errors import CardError

Precision = Literal["fp32", "fp16", "int8"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FileName = Annotated[str, Meta(pattern=r"^(?!\.)[^/\\\x00-\x1f\x7f]{1,200}$(?!\n)")]


class Output(Checked, frozen=True, forbid_unknown_fields=True):
    """One output of a graph for images. The first dimension of `shape` is the batch, which is None."""

    name: str
    dtype: Literal["float32", "uint8", "int32"]
    shape: tuple[int | None, ...]


class Tensor(Checked, frozen=True, forbid_unknown_fields=True):
    """An input or output of any graph. In `shape`, the batch, which is first, and all free dimensions are None."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]


class Prediction(Checked, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One golden prediction. All coordinates are in pixels of the photo.

    Attributes:
        box: (left, top, right, bottom).
        area: share of the photo, 0 to 1.
        keypoints: of a pose: x, y and score of each.
        corners: of a rotated box, as `zoo.rotated.corners` orders them.
    """

    class_id: int
    label: str
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    area: float | None = None
    keypoints: tuple[tuple[float, float, float], ...] | None = None
    corners: tuple[tuple[float, float], ...] | None = None


class Golden(Checked, frozen=True, forbid_unknown_fields=True):
    """The answer of the reference (the network before conversion) to a photo in the folder's `golden/`.

    classify: the top 5. detect: the boxes with a score of at least 0.5 after class-wise NMS at IoU 0.45.
    segment: one entry per class that covers at least 1 % of the photo, except the background; for instances as for
    detect, with the area of each object's mask. pose: as for detect, with keypoints. obb: the rotated boxes with a
    score of at least 0.5 after `zoo.rotated.suppress` at 0.45.
    """

    photo: FileName
    sha256: Sha256
    predictions: tuple[Prediction, ...]


class GoldenTensors(Checked, frozen=True, forbid_unknown_fields=True):
    """The graph's answers when it was exported: NumPy's `.npz` in `golden/` with `in/<name>` and `out/<name>`.

    Every array has the same number of rows, each computed alone.

    Attributes:
        sample: whether the inputs are samples from the graph's owner; else they are noise.
    """

    file: FileName
    sha256: Sha256
    sample: bool


class Parity(Checked, frozen=True, forbid_unknown_fields=True):
    """The differences between ONNX Runtime's outputs and the reference's, on real photos or on the golden tensors.

    Attributes:
        tolerance: by output; older exports have one number for all.
        original: whether the reference is the checkpoint's own library or runtime; False: our reading of its files, or
            our decoding of what the library's layers answer. None: not noted, as in older exports and for graphs that
            take tensors.
        max_difference: by output; `logits` are those from which `probabilities` are computed.
    """

    reference: str
    tolerance: float | dict[str, float]
    batches: tuple[int, ...]
    max_difference: dict[str, float]
    original: bool | None = None


class Provenance(Checked, frozen=True, forbid_unknown_fields=True):
    """The origin of a served graph: each source's address and hash, and the versions of the converting libraries.

    Attributes:
        made_from: a sha256 of the model card and the converting code, by which `export` sees whether they have changed.
            The libraries are compared by `exported_with`.
    """

    sources: dict[str, str]
    sha256: dict[str, Sha256]
    exported_at: str
    exported_with: dict[str, str]
    made_from: Sha256 | None = None


class Agreement(Checked, frozen=True, forbid_unknown_fields=True):
    """The measured agreement of a variant of lower precision with its fp32 model; `Bound` defines the terms.

    Attributes:
        base: name of the fp32 model from which it was made.
        photos: number of photos on which the two were compared; none of them was used for calibration.
        provider: execution provider of ONNX Runtime on which the variant was run. Earlier folders do not name it: CPU.
    """

    base: Name
    photos: int
    agreement: float
    shift: float
    bound: Bound
    provider: str = CPU


class Served(Checked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of all `card.json` files.

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
    pinned: bool = False
    accepted: tuple[str, ...] = ()


def images_of(recipe: Recipe) -> tuple[Tensor, ...]:
    """Return the only input of a graph for images: what the recipe makes of them, uint8 [N, height, width, 3] RGB."""
    return (Tensor("images", "uint8", (None, recipe.height, recipe.width, 3)),)


class ServedCard(Served, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `card.json` of a model for images.

    Attributes:
        labels: class names by class id. For semantic segmentation, id 0 is the background.
        keypoints: of a pose, in the order of the output `keypoints`.
        nms: for boxes, whether non-maximum suppression must still be applied to the outputs.
        nms_options: for boxes, how objects are selected where a request does not say it.
        evaluation: for boxes, how objects are selected when the published accuracy is measured.
        agreement: of a variant of lower precision with its fp32 model.
    """

    task: Task
    labels: tuple[str, ...]
    recipe: Recipe
    outputs: tuple[Output, ...]
    nms: bool
    nms_options: Nms = Nms()
    evaluation: Nms = EVALUATION
    golden: tuple[Golden, ...]
    agreement: Agreement | None = None
    keypoints: Keypoints | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.task == "pose") != (self.keypoints is not None):
            raise ValueError('`keypoints` belongs to `task = "pose"`, and to it alone')

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keypoints to connect in drawings."""
        return self.keypoints.skeleton if self.keypoints else ()

    @property
    def unmeasured(self) -> str:
        """Where a variant's agreement says nothing about the device that it is for: "CUDA" for fp16, or ""."""
        elsewhere = self.precision == "fp16" and self.agreement is not None and self.agreement.provider != CUDA
        return "CUDA" if elsewhere else ""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The graph's only input: images after the recipe, uint8 [N, height, width, 3] RGB."""
        return images_of(self.recipe)

    @property
    def files(self) -> dict[str, Sha256]:
        """The sha256 of each file of the folder except card.json."""
        return {"model.onnx": self.sha256} | {f"golden/{golden.photo}": golden.sha256 for golden in self.golden}


class ServedTensors(Served, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `card.json` of a graph with tensors as inputs and outputs. Their first dimension is the batch.

    Attributes:
        recipe: the graph's only input is `images` uint8 [N, height, width, 3] RGB, and an encoded image becomes it by
            this recipe. None: it takes tensors only.
    """

    task: Literal["tensors"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: GoldenTensors
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recipe is not None and self.inputs != images_of(self.recipe):
            raise ValueError(f"a graph with a `recipe` has the only input {images_of(self.recipe)}, not {self.inputs}")

    @property
    def answers_image(self) -> bool:
        """Whether an image is answered with an image: the output `image`, uint8 [N, h, w, C], of 1, 3 or 4 channels."""
        image = next((output for output in self.outputs if output.name == "image"), None)
        return (
            self.recipe is not None
            and image is not None
            and image.dtype == "uint8"
            and len(image.shape) == 4
            and image.shape[3] in {1, 3, 4}
        )

    @property
    def files(self) -> dict[str, Sha256]:
        """The sha256 of each file of the folder except card.json."""
        return {"model.onnx": self.sha256, f"golden/{self.golden.file}": self.golden.sha256}


AnyServed = ServedCard | ServedTensors


def require_images(card: AnyServed) -> ServedCard:
    """Return the card of a served model for images.

    Raises:
        CardError: it is that of a graph that takes tensors.
    """
    if isinstance(card, ServedTensors):
        raise CardError(f"{card.name} takes tensors, and this is for models that take images")
    return card


def read_served_card(path: Path) -> AnyServed:
    """Read and validate a `card.json`.

    Raises:
        CardError: naming the file and the field at fault.
    """
    return read_checked(path, decode_served_card, (ServedCard, Licence, Recipe, Nms, Keypoints, Bound))


def decode_served_card(data: bytes) -> AnyServed:
    """Read the JSON of a card that was valid; raises what msgspec does."""
    if msgspec.json.decode(data, type=TaskOnly).task == "tensors":
        return msgspec.json.decode(data, type=ServedTensors)
    return msgspec.json.decode(data, type=ServedCard)


def write_served_card(card: AnyServed, path: Path) -> None:
    """Write a `card.json`, indented."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
