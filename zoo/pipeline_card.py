"""The card of a pipeline: a detector, how its objects are cut out, and what a second model is asked about each crop.

The zoo's are in `zoo/pipelines/`, a user's own in the folder `pipelines` of the store, `models/pipelines/NAME.toml`.
"""

from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from zoo.card import Checked, Name, Share, read_checked
from zoo.errors import CardError

FOLDER = "pipelines"
"""The folder of a user's own pipelines, in that of the models."""
_ZOO = Path(__file__).parent / FOLDER
SecondTask = Literal["classify", "embed", "detect", "segment", "pose"]
Options = dict[str, str | int | float | bool]


class Detect(Checked, frozen=True, forbid_unknown_fields=True):
    """The first model, a detector.

    Attributes:
        model: its name.
        classes: labels of the objects that are answered; empty: all.
        options: of `/v1/detect`, in the place of the model's own; a request's come before them.
    """

    model: Name
    classes: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)


class Crops(Checked, frozen=True, forbid_unknown_fields=True):
    """How objects are cut out of the original image.

    Attributes:
        pad: what is added to a box on each side, as a share of its width and height; it is cut at the image's edges.
        min_size: smaller crops, by their shorter side in pixels, are not asked about.
        max_crops: how many are asked about at most, those with the best scores.
    """

    pad: Share = 0.1
    min_size: Annotated[int, Meta(ge=1, le=4096)] = 16
    max_crops: Annotated[int, Meta(ge=1, le=1000)] = 20


class Second(Checked, frozen=True, forbid_unknown_fields=True):
    """The second model, which is asked about each crop.

    Attributes:
        task: that it is asked for.
        model: its name.
        options: of that task; a request's come before them.
    """

    task: SecondTask
    model: Name
    options: Options = field(default_factory=dict)


class PipelineCard(Checked, frozen=True, forbid_unknown_fields=True):
    """A pipeline, as its TOML file describes it.

    Attributes:
        version: always 1, for protocols in which all models have one. The models in its answers have their own.
    """

    name: Name
    title: str
    detect: Detect
    second: Second
    crops: Crops = Crops()
    version: Literal["1"] = "1"

    @property
    def models(self) -> tuple[str, str]:
        """The names of both models."""
        return self.detect.model, self.second.model


Pipelines = dict[str, PipelineCard | CardError]


def zoo_pipelines() -> Pipelines:
    """Return the zoo's pipelines by name, sorted."""
    return _read(_ZOO)


def own_pipelines(models: Path) -> Pipelines:
    """Return a user's own pipelines by name, sorted; for a file that is not valid, its error.

    Args:
        models: the folder of exported models.
    """
    return _read(models / FOLDER)


def find_pipeline(name: str, models: Path) -> PipelineCard | None:
    """Return the card of a pipeline, a user's own or the zoo's; None if there is none of this name.

    Raises:
        CardError: its file is not valid.
    """
    card = {**zoo_pipelines(), **own_pipelines(models)}.get(name)
    if isinstance(card, CardError):
        raise card
    return card


def read_pipeline(path: Path) -> PipelineCard:
    """Read and validate the card of a pipeline.

    Raises:
        CardError: naming the file and the field at fault.
    """
    kinds = (PipelineCard, Detect, Crops, Second)
    card = read_checked(path, lambda data: msgspec.toml.decode(data.removeprefix(BOM_UTF8), type=PipelineCard), kinds)
    if card.name != path.stem:
        raise CardError(f"{path}: `name` is {card.name!r}, but the file is called {path.stem!r}")
    return card


def _read(folder: Path) -> Pipelines:
    found: Pipelines = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path.stem] = read_pipeline(path)
        except CardError as error:
            found[path.stem] = error
    return found
