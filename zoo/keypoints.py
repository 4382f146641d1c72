"""Sets of keypoints that model cards name: names, skeletons and sigmas. `export` copies them into card.json."""

from collections.abc import Mapping

from zoo.card import Keypoints
from zoo.errors import CardError

COCO17 = Keypoints(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
)  # fmt: skip
"""The keypoints of COCO's persons, with the sigmas of https://cocodataset.org/#keypoints-eval."""

_KNOWN: Mapping[str, Keypoints] = {"coco17": COCO17}


def numbered(count: int) -> str | Keypoints:
    """COCO's 17, or as many that have numbers for names; a person may name them in the card."""
    return "coco17" if count == len(COCO17.names) else Keypoints(tuple(f"point {i}" for i in range(count)))


def find_keypoints(given: str | Keypoints) -> Keypoints:
    """Return the keypoints of a card, which has them itself or names a set.

    Raises:
        CardError: there is no set of that name.
    """
    if isinstance(given, Keypoints):
        return given
    if given not in _KNOWN:
        raise CardError(
            f"there are no keypoints called {given!r}: use one of {', '.join(_KNOWN)}, or a table [keypoints] with "
            "`names`, `skeleton` and `sigmas`"
        )
    return _KNOWN[given]
