"""classify: the `top_k` most probable classes of an image, and on request where the best of them is visible."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Classification
from service.vision.activation import box_of, encode_heat, heat_of
from zoo.recipe import Placement
from zoo.served_card import ServedCard


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
    probabilities = outputs["probabilities"][index]
    top_k = min(options.top_k, probabilities.size)
    # All that equal the last one: `argpartition` would choose among them, and not the first.
    best = np.flatnonzero(~(probabilities < np.partition(probabilities, -top_k)[-top_k]))
    best = best[np.argsort(-probabilities[best], kind="stable")[:top_k]]
    found = [
        Classification(class_id, card.labels[class_id], round(score, 6))
        for class_id, score in zip(best.tolist(), probabilities[best].tolist(), strict=True)
    ]
    if options.localize or options.heatmap:
        heat = heat_of(outputs["activation"][index], placement, card.recipe.width, card.recipe.height)
        found[0] = msgspec.structs.replace(
            found[0],
            box=box_of(heat, placement) if options.localize else None,
            heatmap=encode_heat(heat, placement) if options.heatmap else None,
        )
    return found
