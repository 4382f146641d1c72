"""What the owner of a file says about it, on the command line of `zooserve add`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.own.graph import Layout
from zoo.card import Task


@dataclass(frozen=True)
class Wishes:
    """What the owner of a file says about it; None and empty where nothing.

    Attributes:
        labels: a `.txt` or `.json` file, or the name of one of the zoo's.
        size: height and width.
        mean, std: in 0..255.
        photos: on which the network has something to find.
    """

    name: str
    task: Task | Literal["tensors"] | None = None
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
