"""Whether two servers answer a photo alike. Called by `loadtests.compare` before anything that it measured counts."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

SCORE_TOLERANCE = 1e-3
_BOX = 1.0  # pixels of the photo
_AREA = 1e-3  # share of the photo
_GREY = 1.0  # mean difference of two masks, in grey levels


def agree(given: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]], *, slack: float = 1.0) -> bool:
    """Compare predictions: the same classes in the same order, and what belongs to each within its tolerance.

    Args:
        given: `class_id` with `score`, with `score` and `box`, or with `area` and `mask`.
        expected: of the same task.
        slack: by which every tolerance is multiplied, for two that did not resize alike.

    Raises:
        LookupError, TypeError, ValueError: they are no predictions.
    """
    return len(given) == len(expected) and all(_alike(a, b, slack) for a, b in zip(given, expected, strict=True))


def _alike(a: dict[str, Any], b: dict[str, Any], slack: float) -> bool:
    if a["class_id"] != b["class_id"]:
        return False
    near = [abs(a[key] - b[key]) <= slack * within for key, within in _TOLERANCES.items() if key in b]
    if "box" in b:
        near += [abs(x - y) <= slack * _BOX for x, y in zip(a["box"], b["box"], strict=True)]
    if "mask" in b:
        one, other = _pixels(a), _pixels(b)
        near.append(one.shape == other.shape and float(np.abs(one - other).mean()) <= slack * _GREY)
    return all(near)


_TOLERANCES = {"score": SCORE_TOLERANCE, "area": _AREA}


def _pixels(prediction: dict[str, Any]) -> Any:
    """The mask as float32 [H, W], 0 to 255."""
    data = np.frombuffer(base64.b64decode(prediction["mask"]["png"], validate=True), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError("the mask is no PNG")
    return mask.astype(np.float32)
