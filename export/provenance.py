"""Where a served graph came from, and whether it still is what its card would give. Needs no torch.

`export.pipeline` writes it into card.json, `export.command` skips a model whose folder is up to date.
"""

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from export.code import code_of, code_of_variants
from zoo.errors import StoreError
from zoo.files import sha256_of
from zoo.labels import read_labels
from zoo.model_card import AnyCard, ModelCard, Source
from zoo.served_card import Provenance, ServedCard, require_images
from zoo.sources import address
from zoo.sources.pins import pinned
from zoo.store import Store

Precision = Literal["fp16", "int8"]
_ALSO_CALLED = {
    "onnxruntime": ("onnxruntime-gpu",),
    "ultralytics": ("ultralytics-opencv-headless", "ultralytics-opencv-python"),
}
_CONVERTERS = ("zooserve", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime")


def describe(card: AnyCard, files: Mapping[str, Path], versions: Mapping[str, str]) -> Provenance:
    """Describe a conversion that was just made.

    Args:
        card: of the model.
        files: its sources, fetched.
        versions: of the libraries that read them, besides the converter's own.
    """
    return Provenance(
        sources={name: address(source) for name, source in card.sources.items()},
        sha256={name: sha256_of(path) for name, path in files.items()},
        exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        exported_with=versions_now(_CONVERTERS) | {name: _version(name) or told for name, told in versions.items()},
        made_from=fingerprint(card),
    )


def fingerprint(card: AnyCard) -> str:
    """Return the sha256 of what decides what is published: the card, its sources' hashes, and the code that converts.

    A source's address does not count: a mirror, or another folder, gives the same file. The text of your
    labels counts too.
    """
    known = {name: pinned(source).digest for name, source in card.sources.items()}
    contents = {
        name: Source(file="", sha256_prefix=digest or None, trust_first=not digest) for name, digest in known.items()
    }
    labels: tuple[str, ...] = ()
    if isinstance(card, ModelCard) and card.labels.endswith((".txt", ".json")):
        labels, card = read_labels(card.labels), msgspec.structs.replace(card, labels="own.txt")
    made = (msgspec.structs.replace(card, sources=contents), code_of(card), *labels)
    return hashlib.sha256(msgspec.json.encode(made, order="sorted")).hexdigest()


def is_current(card: AnyCard, store: Store) -> bool:
    """Say whether the store holds this model, intact, and made from this card, by this code and these libraries."""
    try:
        made = store.verify(card.name, card.version).provenance
    except StoreError:
        return False
    return made.made_from == fingerprint(card) and not _changed(made)


def variant_name(name: str, precision: Precision) -> str:
    """The name under which a variant of lower precision is published and served."""
    return f"{name}-{precision}"


def variant_fingerprint(card: ModelCard, base: ServedCard, precision: Precision) -> str:
    """Return the sha256 of what decides how a variant comes out: the fp32 graph, the precision, the bound, the code."""
    what = (base.sha256, precision, card.bound, base.provenance.made_from, code_of_variants())
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()


def is_variant_current(card: ModelCard, precision: Precision, store: Store) -> bool:
    """Say whether the store holds this variant, intact, and made from the fp32 graph that the store holds now."""
    try:
        base = require_images(store.verify(card.name, card.version))
        variant = store.verify(variant_name(card.name, precision), card.version)
    except StoreError:
        return False
    made = variant.provenance
    return made.made_from == variant_fingerprint(card, base, precision) and not _changed(made)


def versions_now(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of some libraries that are installed."""
    return {name: found for name in names if (found := _version(name))}


def _changed(made: Provenance) -> bool:
    """Whether a library is installed in another version than converted. One that is missing could not convert."""
    return bool(versions_now(made.exported_with).items() - made.exported_with.items())


def _version(library: str) -> str | None:
    for distribution in (library, *_ALSO_CALLED.get(library, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None
