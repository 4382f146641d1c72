"""embed: the features of an image by which a classifier decides, for search, clustering and comparison.

It is another answer of a classifier, not a task of its own cards: the graph computes these features anyway, so one
model in memory, with one queue, answers both.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Embedding
from zoo.recipe import Placement
from zoo.served_card import ServedCard


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/embed`."""

    normalize: Annotated[
        bool, Meta(description="Scale the features to a Euclidean length of 1, so that a dot product is the cosine.")
    ] = False


def answer(
    outputs: Tensors,
    index: int,
    card: ServedCard,  # noqa: ARG001 - as for all tasks
    placement: Placement,  # noqa: ARG001
    options: Options,
) -> list[Embedding]:
    """Return the features of one image, as a list of one.

    The graph's output is `embedding` float32 [N, F], what the classifier's last layer reads.
    """
    features = outputs["embedding"][index]
    if options.normalize:
        length = np.linalg.norm(features.astype(np.float64))
        features = (features / max(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return [Embedding(features.tolist())]
