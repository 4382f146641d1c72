"""Keypoints of COCO's `person_keypoints_*.json`, checked before pycocotools reads them. Called by `coco`."""

from collections.abc import Sequence

from evaluation.dataset import DataError
from zoo.card import Keypoints
from zoo.served_card import ServedCard


def keypoints_to_judge(card: ServedCard) -> Keypoints | None:
    """Return the keypoints by which a model is judged; None if it answers none.

    Raises:
        DataError: its card has no sigmas, without which a similarity (OKS) has no scale.
    """
    if card.keypoints is not None and not card.keypoints.sigmas:
        raise DataError(f"{card.name} has no sigmas: give them in its card, one for each keypoint, and export it again")
    return card.keypoints


def check_names(named: Sequence[str], expected: Keypoints, where: str) -> None:
    """Compare a category's names of keypoints, whose order gives the coordinates their meaning, with the model's.

    Raises:
        DataError: they are others, or in another order.
    """
    if named and tuple(named) != expected.names:
        raise DataError(
            f"{where} has the keypoints {', '.join(named)}; the model's are {', '.join(expected.names)}, in that order"
        )


def read_keypoints(given: Sequence[float] | None, expected: Keypoints, where: str) -> tuple[float, ...]:
    """Return an object's keypoints, x, y and visibility (0, 1, 2) of each; all 0 where it has none.

    Raises:
        DataError: there are others than the model answers.
    """
    count = len(expected.names)
    if not given:  # some programs write an empty list
        return (0.0,) * (3 * count)
    if len(given) != 3 * count:
        raise DataError(f"{where} has {len(given)} numbers as keypoints, expected {3 * count}: x, y, v of {count}")
    return tuple(map(float, given))
