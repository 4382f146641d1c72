"""Chooses a normalisation: with the right one a network distinguishes photos, and answers mirrored ones alike.

`export.importer.adding` tries those that a file leaves open. With a wrong normalisation, networks are seldom as sure
and as consistent; a softmax that is saturated by pixels of a hundredfold size says the same of everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageOps
from torchvision.ops import box_iou

from export.importer.photos import open_photos
from export.network import Network
from export.reference import Outputs, Reference
from zoo.model_card import ModelCard, Normalise
from zoo.recipe import apply_exact

Image8 = npt.NDArray[np.uint8]
_CANDIDATES = 100  # boxes per image that are looked at
_SAME = 0.5  # IoU of a box and its counterpart in the mirror
_NOTHING = 0.05  # nats, or a score: networks whose weights are random stay below, trained ones reach ten times as much
_EQUAL = 0.97  # of the best: what comes so close is as good


def try_normalisations(
    card: ModelCard, network: Network, classes: int, candidates: Mapping[str, Normalise], photos: Sequence[Path]
) -> dict[str, float]:
    """Judge each normalisation by a network's answers to sample photos, the user's photos, and all of them mirrored.

    Returns:
        By name, best first. For classifiers and masks, the mutual information, in nats, between the photo (or the
        pixel) and its class, both views taken together. For detectors, the mean score of each photo's surest object
        that is there in the mirror, too.
    """
    views = [
        (np.array(apply_exact(card.recipe, one)), np.array(apply_exact(card.recipe, ImageOps.mirror(one))))
        for one in open_photos(photos)
    ]
    found = {}
    for name, normalise in candidates.items():
        reference = Reference(msgspec.structs.replace(card, normalise=normalise), network, classes)
        found[name] = _judged(card, reference, views)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def undecided(judged: Mapping[str, float]) -> bool:
    """Whether the network recognised nothing with any normalisation, so that the trial decides nothing."""
    return max(judged.values()) < _NOTHING


def choose(judged: Mapping[str, float], usual: Iterable[str]) -> tuple[str, list[str]]:
    """Return the most usual of the normalisations that are as good as the best, and the others that are."""
    best = max(judged.values())
    first, *others = [name for name in usual if judged[name] >= _EQUAL * best]
    return first, others


def _judged(card: ModelCard, reference: Reference, views: Sequence[tuple[Image8, Image8]]) -> float:
    if card.family == "yolo_onnx":
        return float(
            np.mean([_sure_object(reference(a[None]), reference(b[None]), card.recipe.width) for a, b in views])
        )
    both = [(_distribution(reference, plain), _distribution(reference, mirrored)) for plain, mirrored in views]
    items = [(plain + mirrored[..., ::-1]) / 2 for plain, mirrored in both]  # an image's one item is its own mirror
    means = np.concatenate([item.reshape(item.shape[0], -1) for item in items], axis=1)
    return float(_entropy(means.mean(1)) - _entropy(means).mean())


def _distribution(reference: Reference, image: Image8) -> npt.NDArray[np.float64]:
    """Return how likely each class is: [C, 1] for an image, [C, h, w] for its pixels."""
    raw = {name: value[0].double().numpy() for name, value in reference.raw(image[None]).items()}
    if "alpha" in raw:
        opacity: npt.NDArray[np.float64] = raw["alpha"].clip(0, 1)
        return np.concatenate([1 - opacity, opacity])
    logits = raw["logits"] if raw["logits"].ndim == 3 else raw["logits"][:, None]
    powers = np.exp(logits - logits.max(0))
    likely: npt.NDArray[np.float64] = powers / powers.sum(0)
    return likely


def _entropy(likely: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the entropy of each column, in nats."""
    entropy: npt.NDArray[np.float64] = -(likely * np.log(likely.clip(1e-12))).sum(0)
    return entropy


def _sure_object(plain: Outputs, mirrored: Outputs, width: int) -> float:
    """Return the highest score of an object that both views show, the lower of its two; 0 where there is none."""
    one, other = ({name: value[0][:_CANDIDATES] for name, value in view.items()} for view in (plain, mirrored))
    back = other["boxes"][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    overlap = box_iou(torch.from_numpy(one["boxes"]).double(), torch.from_numpy(back)).numpy()
    same = (overlap > _SAME) & (one["classes"][:, None] == other["classes"])
    return float(np.where(same, np.minimum(one["scores"][:, None], other["scores"]), 0).max(initial=0))
