"""What a family (`export.families.<family>`) hands to the converter.

A family module has a public function `build(card: ModelCard, files: dict[str, Path]) -> Network`, where `files` are
the card's verified sources by name. It raises `zoo.errors.ExportError` where a file does not fit.

A family of networks that take tensors (cards with `task = "tensors"`) has `build_tensors(card: TensorCard, files) ->
TensorNetwork` instead.

A family whose cards have `options` has a struct `Options` (see `export.options`), against which they are checked.

A family whose library knows models by name may also have `names() -> list[str]` and `card_for(name: str) -> ModelCard |
None`, which writes the card of one. Such a family is an entry point of `zooserve.cards` (see `zoo.libraries`), and the
first sentence of its docstring stands in `zooserve list`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from zoo.card import EVALUATION, USUAL, Nms
from zoo.served_card import CPU

Rows = dict[str, npt.NDArray[Any]]
RawOutputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Network:
    """A trained network: float32 [N, 3, H, W] in (the card's `normalise` already applied), raw answers out.

    Where `normalise.channels` is `grey`, the input is [N, 1, H, W].

    What comes out, by task:

    - classify: `logits` [N, C]; and `activation` [N, h, w], the class activation map of the top class, where the
      network ends in global average pooling; and `embedding` [N, F], what its last layer reads, where that is linear
    - detect: `boxes` [N, A, 4] xyxy in input pixels, and `scores` [N, A, C] in 0..1 (class probability, objectness
      applied); or, where each box has its one class already, `scores` [N, A] and `classes` [N, A]
    - segment: `logits` [N, C, h, w] (the head upsamples them to the input and takes the argmax); or, for a salient
      object, `alpha` [N, 1, H, W] in 0..1; or, for instances, detect's answers with `coefficients` [N, A, M] and
      `prototypes` [N, M, h, w]: an object's mask is where sigmoid(coefficients . prototypes) is over 0.5, in its box
    - pose: detect's answers with `keypoints` [N, A, P, 3]: x and y in input pixels, and a score in 0..1 (1 where the
      network gives none)
    - obb: detect's answers, but `boxes` [N, A, 5]: centre x, y, width and height in input pixels, and the angle in
      radians, as `zoo.rotated` defines them

    Attributes:
        module: the network in torch, in eval mode, returning a dict of the raw outputs; or an ONNX model with one
            float32 [N, 3, H, W] input and these outputs, for checkpoints that are published as ONNX.
        reference: the original runtime where the checkpoint is not torch's own (a TFLite interpreter, the published
            ONNX file): the same normalised input -> raw outputs. None: torch itself is the reference.
        reference_name: of that runtime with its version, for card.json ("torch 2.15.0").
        versions: of the libraries that read the checkpoint, for card.json.
        original: whether the reference is the checkpoint's own library or runtime, and neither our reading of its files
            nor our decoding of what the library's layers answer.
        nms: for boxes, whether class-wise non-maximum suppression is still owed to them.
        nms_options: for boxes, how the original library selects objects; a card may say otherwise.
        evaluation: for boxes, how it selects them when accuracy is measured.
    """

    module: nn.Module | onnx.ModelProto
    reference_name: str
    reference: Callable[[npt.NDArray[np.float32]], RawOutputs] | None = None
    versions: Mapping[str, str] | None = None
    original: bool = True
    nms: bool = True
    nms_options: Nms = USUAL
    evaluation: Nms = EVALUATION


class OnnxNetwork(nn.Module):
    """A published ONNX graph with one input, [N, ...], as a module: ONNX Runtime computes it, and is the reference.

    Args:
        model: the graph.
        path: of the file that it is from, for messages.
    """

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        super().__init__()
        self.model = model
        self._session = InferenceSession(model.SerializeToString(), providers=[CPU])
        self.path = path

    def run(self, x: npt.NDArray[np.float32]) -> Rows:
        """Return all outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {self._session.get_inputs()[0].name: x}), strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value) for name, value in self.run(x.numpy()).items()}


@dataclass(frozen=True)
class TensorNetwork:
    """A trained network that takes tensors: its family has the card `task = "tensors"`, and torch is its reference.

    Attributes:
        module: takes its inputs by name, each [N, ...], and answers with a dict of outputs, each [N, ...]. Where the
            card has a `recipe`: float32 [N, 3, H, W], its `normalise` already applied; and an output `image` is float32
            [N, C, h, w], grey, RGB or RGBA in 0..255.
        rows: real inputs by name, at least three rows: for the proof that they are answered alike alone and together,
            and for the golden answers. Where the card has a `recipe`: `images` uint8 [M, H, W, 3], or empty for the
            sample photos.
        free: names of the free dimensions besides the batch, by input and axis.
    """

    module: nn.Module
    rows: Rows
    free: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
