"""One model's way from card to published folder: fetch, build, convert, parity, golden, publish.

`export.command` calls it for each model that is not up to date.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from export.build import build
from export.convert import OPSET, convert
from export.golden import Photo, golden_answer
from export.network import Network
from export.parity import LOGITS, measure
from export.photos import PARITY_PHOTOS, open_upright
from export.provenance import describe
from export.reference import Outputs, Reference
from export.steps import Export, Steps
from export.tensors import export_tensors
from zoo import catalog
from zoo.files import sha256_of
from zoo.keypoints import find_keypoints
from zoo.labels import read_labels
from zoo.licences import check_accepted
from zoo.model_card import AnyCard, ModelCard, TensorCard
from zoo.recipe import apply_exact
from zoo.served_card import Golden, Output, Parity, Provenance, ServedCard
from zoo.sources import fetch_all
from zoo.store import Store

GOLDEN_PHOTOS = ("chelsea", "coffee")  # where the card expects nothing


def export_model(
    card: AnyCard,
    store: Store,
    *,
    accepted: Collection[str] = (),
    on_step: Callable[[str], None] = lambda _: None,
    verbose: bool = False,
) -> Export:
    """Convert a model and publish it, unless a check fails. A graph that takes tensors is published as it is.

    Args:
        card: of the model.
        store: where it is published.
        accepted: SPDX identifiers of the licences that were accepted by name.
        on_step: told the name of each step as it begins.
        verbose: let the ONNX exporter say what it does.

    Raises:
        LicenceError: a licence of the card is not permissive and was not accepted; nothing is fetched then.
        SourceError: a file could not be had.
        ExportError: it does not fit, does not convert, answers otherwise than before, or not what the card expects.
    """
    licences = check_accepted(card.name, card.licence, accepted)
    step = Steps(on_step)
    if isinstance(card, TensorCard):
        return export_tensors(card, store, licences, step)
    with step("fetch"):
        files = fetch_all(card.sources)
        expected = tuple(dict.fromkeys(expectation.photo for expectation in card.expect)) or GOLDEN_PHOTOS
        photos = [open_photo(name, catalog.sample(name)) for name in dict.fromkeys((*expected, *PARITY_PHOTOS))]
        images = np.stack([apply_exact(card.recipe, photo.image) for photo in photos])
    with step("build"):
        labels = read_labels(card.labels)
        network = build(card, files)
        reference = Reference(card, network, len(labels))
    with step("convert"):
        model = convert(card, network, reference.head, reference.raw(images[:2]), verbose=verbose)
    with TemporaryDirectory(prefix="zooserve-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(model, path)
        del model  # up to 2 GB
        with step("parity"):
            answered = [reference.answers(image[None]) for image in images]
            answers = [outputs for outputs, _ in answered]
            compared = [outputs | _logits(card, raw) for outputs, raw in answered]
            measured = msgspec.structs.replace(
                measure(card, path, network.reference_name, images, compared), original=network.original
            )
        with step("golden"):
            chosen = list(zip(photos, answers, strict=True))[: len(expected)]
            goldens = tuple(golden_answer(card, labels, photo, outputs) for photo, outputs in chosen)
        with step("publish"):
            served = _served_card(
                card,
                model=path,
                outputs=answers[0],
                parity=measured,
                golden=goldens,
                provenance=describe(card, files, network.versions or {}),
                network=network,
                accepted=licences,
            )
            contents: dict[str, Path | bytes] = {"model.onnx": path}
            contents |= {f"golden/{one.photo}": photo.path for one, photo in zip(goldens, photos, strict=False)}
            target = store.publish(served, contents)
    return Export(served, target, step.seconds)


def open_photo(name: str, path: Path) -> Photo:
    """Open a photo as the exact recipe expects it: upright, RGB."""
    return Photo(name, path, open_upright(path))


def _logits(card: ModelCard, raw: Outputs) -> Outputs:
    """A classifier's logits, to be compared beside its probabilities."""
    return {LOGITS: raw[LOGITS]} if card.task == "classify" else {}


def _output(name: str, value: npt.NDArray[Any]) -> Output:
    return msgspec.convert({"name": name, "dtype": value.dtype.name, "shape": (None, *value.shape[1:])}, Output)


def _served_card(
    card: ModelCard,
    *,
    model: Path,
    outputs: Outputs,
    parity: Parity,
    golden: tuple[Golden, ...],
    provenance: Provenance,
    network: Network,
    accepted: tuple[str, ...],
) -> ServedCard:
    return ServedCard(
        name=card.name,
        version=card.version,
        task=card.task,
        family=card.family,
        title=card.title,
        homepage=card.homepage,
        licence=card.licence,
        labels=read_labels(card.labels),
        recipe=card.recipe,
        outputs=tuple(_output(name, value) for name, value in outputs.items()),
        nms=network.nms and "boxes" in outputs,
        nms_options=card.nms or network.nms_options,
        evaluation=card.evaluation or network.evaluation,
        precision="fp32",
        opset=OPSET,
        sha256=sha256_of(model),
        size=model.stat().st_size,
        provenance=provenance,
        parity=parity,
        golden=golden,
        task_default=card.task_default,
        pinned=card.pinned,
        keypoints=None if card.keypoints is None else find_keypoints(card.keypoints),
        accepted=accepted,
    )
