"""What the user of `zooserve add` states about the file on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.importer.graph import Layout
from zoo.card import Task


@dataclass(frozen=True)
class ImportOptions:
    """What the user states about a file; None or empty where nothing is stated.

    Attributes:
        name: of the model.
        task: what it does.
        labels: a `.txt` or `.json` file, or the name of one of the zoo's.
        licence: SPDX identifier of the weights' licence.
        resize: how an image becomes the input; see `zoo.recipe`.
        size: height and width of the input in pixels.
        mean, std: of the normalisation, by channel, for pixels in 0..255.
        channels: their order: rgb, bgr or grey.
        layout: of an ONNX file's input.
        output: name of the ONNX output that is the answer.
        photos: images in which the network has something to find.
    """

    name: str
    task: Task | Literal["tensors", "image"] | None = None
    labels: str | None = None
    licence: str | None = None
    resize: str | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str | None = None
    layout: Layout | None = None
    output: str | None = None
    photos: tuple[Path, ...] = ()
