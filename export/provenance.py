"""Where a served graph came from, and whether it still is what its card would give. Needs no torch.

`export.pipeline` writes it into card.json, `export.command` skips a model whose folder is up to date.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from zoo.card import AnyCard, ModelCard, Provenance, ServedCard, Source, of_pictures
from zoo.errors import StoreError
from zoo.hashing import sha256_of
from zoo.labels import read_labels
from zoo.sources import address
from zoo.store import Store

Precision = Literal["fp16", "int8"]
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
        exported_with={name: found for name in _CONVERTERS if (found := _version(name))} | dict(versions),
        made_from=fingerprint(card),
    )


def fingerprint(card: AnyCard) -> str:
    """Return the sha256 of all that decides what is published: the card, its sources' hashes, zooserve's version.

    Where a source lies does not count: a mirror, or another folder, gives the same file. Of labels of
    one's own it is their text that counts, too.
    """
    contents = {name: Source(file="", sha256_prefix=source.digest) for name, source in card.sources.items()}
    labels: tuple[str, ...] = ()
    if isinstance(card, ModelCard) and card.labels.endswith((".txt", ".json")):
        labels, card = read_labels(card.labels), msgspec.structs.replace(card, labels="own.txt")
    made = (msgspec.structs.replace(card, sources=contents), _version("zooserve"), *labels)
    return hashlib.sha256(msgspec.json.encode(made, order="sorted")).hexdigest()


def is_current(card: AnyCard, store: Store) -> bool:
    """Say whether the store holds this model, intact, made from this card by this version of zooserve."""
    try:
        return store.verify(card.name, card.version).provenance.made_from == fingerprint(card)
    except StoreError:
        return False


def variant_name(name: str, precision: Precision) -> str:
    """The name under which a variant of lower precision is published and served."""
    return f"{name}-{precision}"


def variant_fingerprint(card: ModelCard, base: ServedCard, precision: Precision) -> str:
    """Return the sha256 of what decides how a variant comes out: the fp32 graph, the precision, the bound, the code."""
    what = (base.sha256, precision, card.bound, _version("onnxruntime"), base.provenance.made_from)
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()


def is_variant_current(card: ModelCard, precision: Precision, store: Store) -> bool:
    """Say whether the store holds this variant, intact, made from the fp32 graph that the store holds now."""
    try:
        base = of_pictures(store.verify(card.name, card.version))
        variant = store.verify(variant_name(card.name, precision), card.version)
    except StoreError:
        return False
    return variant.provenance.made_from == variant_fingerprint(card, base, precision)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime is called onnxruntime-gpu where it is built for one
        return _version("onnxruntime-gpu") if distribution == "onnxruntime" else None
