"""classify: the `top_k` most probable classes of an image, and on request where the best of them is visible."""

from math import isfinite
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Classification
from service.vision.activation import box_of, encode_heat, heat_of
from zoo.recipe import Placement
from zoo.served_card import ServedCard

_FEW = 32  # classes that are cheaper to sort in Python


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/classify`."""

    top_k: Annotated[int, Meta(ge=1, le=1000, description="How many classes to answer with, best first.")] = 5
    localize: Annotated[bool, Meta(description="Answer with a box around the best class.")] = False
    heatmap: Annotated[bool, Meta(description="Answer with a heat map of the best class.")] = False


def light(options: Options) -> bool:
    """Return whether nothing is drawn or measured in the image."""
    return not (options.localize or options.heatmap)


def unsupported_reason(options: Options, card: ServedCard) -> str | None:
    """Return why a model does not support these options; None if it does."""
    if light(options) or any(output.name == "activation" for output in card.outputs):
        return None
    return (
        f"`{card.name}` does not support `localize` and `heatmap`: they need a network that ends in global average "
        "pooling and at most one layer after it."
    )


def answer(
    outputs: Tensors, index: int, card: ServedCard, placement: Placement, options: Options
) -> list[Classification]:
    """Select the `top_k` most probable classes of one image, best first; equal ones in the order of their class ids.

    The graph's outputs are `probabilities` float32 [N, C]; for `localize` and `heatmap` also `activation` float32
    [N, h, w], the class activation map of the best class.
    """
    found = [
        Classification(class_id, card.labels[class_id], round(score, 6))
        for class_id, score in _best(outputs["probabilities"][index], options.top_k)
    ]
    if options.localize or options.heatmap:
        heat = heat_of(outputs["activation"][index], placement, card.recipe.width, card.recipe.height)
        found[0] = msgspec.structs.replace(
            found[0],
            box=box_of(heat, placement) if options.localize else None,
            heatmap=encode_heat(heat, placement) if options.heatmap else None,
        )
    return found


def _best(probabilities: npt.NDArray[np.float32], top_k: int) -> list[tuple[int, float]]:
    """Return class ids and probabilities of the `top_k` most probable classes, in the order of `answer`.

    Few of them are chosen by one call of NumPy and then in Python: in each call NumPy gives up the interpreter's lock,
    which other threads take.
    """
    if top_k < min(_FEW, probabilities.size):
        some = np.argpartition(probabilities, -top_k - 1)[-top_k - 1 :].tolist()  # and the next one
        found = sorted([(-probabilities.item(class_id), class_id) for class_id in some])
        # Where the next one is equal, it is chance which of the equal ones are among them. NaN have no order.
        if found[top_k][0] > found[top_k - 1][0] and isfinite(sum([score for score, _ in found])):
            return [(class_id, -score) for score, class_id in found[:top_k]]
    ids = np.argsort(-probabilities, kind="stable")[:top_k]
    return list(zip(ids.tolist(), probabilities[ids].tolist(), strict=True))
