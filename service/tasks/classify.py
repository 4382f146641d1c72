"""classify: `probabilities` float32 [N, C] -> the `top_k` most probable classes."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.results import Classification
from zoo.card import ServedCard
from zoo.recipe import Placement


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/classify`."""

    top_k: Annotated[int, Meta(ge=1, le=1000, description="How many classes to answer with, best first.")] = 5


def answer(
    outputs: Mapping[str, npt.NDArray[Any]],
    index: int,
    card: ServedCard,
    placement: Placement,  # noqa: ARG001 - a class has no place in the picture
    options: Options,
) -> list[Classification]:
    """Pick the `top_k` most probable classes of picture `index`, best first, equals by class id."""
    probabilities = outputs["probabilities"][index]
    top_k = min(options.top_k, probabilities.size)
    best = np.argpartition(probabilities, -top_k)[-top_k:]
    best = best[np.lexsort((best, -probabilities[best]))]
    return [
        Classification(class_id, card.labels[class_id], round(score, 6))
        for class_id, score in zip(best.tolist(), probabilities[best].tolist(), strict=True)
    ]
