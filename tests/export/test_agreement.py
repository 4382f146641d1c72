"""How much of a model's answers a variant keeps: on answers whose measures can be counted by hand."""

import numpy as np
import pytest

from export.agreement import measure
from zoo.card import Recipe
from zoo.errors import ExportError

RECIPE = Recipe(16, 64, "stretch")


def classes(*probabilities: float) -> dict[str, np.ndarray]:
    return {"probabilities": np.array([probabilities], np.float32)}


def objects(*found: tuple[float, float, int]) -> dict[str, np.ndarray]:
    """(left edge, score, class) of boxes 10 x 10."""
    return {
        "boxes": np.array([[[x, 0, x + 10, 10] for x, _, _ in found]], np.float32).reshape(1, -1, 4),
        "scores": np.array([[score for _, score, _ in found]], np.float32),
        "classes": np.array([[class_id for _, _, class_id in found]], np.int32),
    }


def instances(found: list[tuple[float, float, int]], covers: list[str]) -> dict[str, np.ndarray]:
    """Such objects with masks: the `left`, `right` or `whole` half of the input's width, or `nothing`."""
    weights = {"left": (5, 0), "right": (0, 5), "whole": (5, 5), "nothing": (-5, -5)}
    prototypes = np.full((1, 2, 16, 64), -0.1, np.float32)
    prototypes[0, 0, :, :5] = prototypes[0, 1, :, 5:] = 1  # boxes are 10 wide, so these are halves of the first
    return objects(*found) | {
        "coefficients": np.array([[weights[one] for one in covers]], np.float32),
        "prototypes": prototypes,
    }


def rotated(*found: tuple[float, float, float, int]) -> dict[str, np.ndarray]:
    """(centre x, angle, score, class) of rotated boxes 20 x 5."""
    return {
        "boxes": np.array([[[x, 8, 20, 5, angle] for x, angle, _, _ in found]], np.float32),
        "scores": np.array([[score for _, _, score, _ in found]], np.float32),
        "classes": np.array([[class_id for _, _, _, class_id in found]], np.int32),
    }


def poses(*found: tuple[float, float, float]) -> dict[str, np.ndarray]:
    """(left edge, score, how far the keypoints are off) of poses in boxes 10 x 10."""
    points = [[[x + 5 + off, 5, 1], [x + 2, 2 + off, 1]] for x, _, off in found]
    return objects(*((x, score, 0) for x, score, _ in found)) | {"keypoints": np.array([points], np.float32)}


def mask(*pixels: int) -> dict[str, np.ndarray]:
    return {"mask": np.array([[pixels]], np.uint8)}


CASES = {
    "the same class": ([classes(0.9, 0.1)], [classes(0.7, 0.3)], 1.0, 0.2),
    "another class": ([classes(0.9, 0.1)], [classes(0.4, 0.6)], 0.0, 0.5),
    "what fp32 is unsure of does not count": ([classes(0.4, 0.3, 0.3), classes(0.9, 0.1, 0.0)],
                                              [classes(0.1, 0.8, 0.1), classes(0.9, 0.1, 0.0)], 1.0, 0.0),
    "one of two objects is lost": ([objects((0, 0.9, 1), (50, 0.8, 1))],
                                   [objects((1, 0.7, 1), (90, 0.8, 1))], 0.5, 0.5),
    "another class is not the same object": ([objects((0, 0.9, 1))], [objects((0, 0.9, 2))], 0.0, 0.9),
    "a box that moved too far": ([objects((0, 0.9, 1))], [objects((4, 0.9, 1))], 0.0, 0.9),
    "duplicates count once": ([objects((0, 0.9, 1), (1, 0.8, 1))], [objects((0, 0.8, 1))], 1.0, 0.1),
    "a score under the service's threshold": ([objects((0, 0.9, 1))], [objects((0, 0.2, 1))], 0.0, 0.9),
    "the same object with the same mask": ([instances([(0, 0.9, 1)], ["left"])],
                                           [instances([(0, 0.8, 1)], ["left"])], 1.0, 0.1),
    "the same box with another mask": ([instances([(0, 0.9, 1)], ["left"])],
                                       [instances([(0, 0.8, 1)], ["right"])], 0.0, 0.9),
    "the same box with half of the mask": ([instances([(0, 0.9, 1)], ["whole"])],
                                           [instances([(0, 0.8, 1)], ["left"])], 1.0, 0.1),
    "the same box without a mask": ([instances([(0, 0.9, 1)], ["whole"])],
                                    [instances([(0, 0.8, 1)], ["nothing"])], 0.0, 0.9),
    "of several boxes the one with the mask": ([instances([(0, 0.9, 1)], ["left"])],
                                               [instances([(0, 0.8, 1), (1, 0.6, 1)], ["right", "left"])], 1.0, 0.3),
    "the same rotated box": ([rotated((20, 0.5, 0.9, 1), (21, 0.5, 0.8, 1))],
                             [rotated((20, 0.55, 0.8, 1))], 1.0, 0.1),
    "a rotated box of another class": ([rotated((20, 0.5, 0.9, 1))], [rotated((20, 0.5, 0.9, 2))], 0.0, 0.9),
    "a rotated box at another angle": ([rotated((20, 0.5, 0.9, 1))], [rotated((20, 2.0, 0.9, 1))], 0.0, 0.9),
    "the same pose": ([poses((0, 0.9, 0))], [poses((0, 0.8, 0.5))], 1.0, 0.1),
    "the same box with another pose": ([poses((0, 0.9, 0))], [poses((0, 0.8, 4))], 0.0, 0.9),
    "masks, the background left out": ([mask(0, 1, 1, 1)], [mask(1, 1, 1, 0)], 0.5, 0.0),
    "a salient object": ([{"alpha": np.array([[[255, 200, 0, 0]]], np.uint8)}],
                         [{"alpha": np.array([[[255, 100, 0, 0]]], np.uint8)}], 0.5, 0.25),
}  # fmt: skip


@pytest.mark.parametrize(("expected", "actual", "agreement", "shift"), CASES.values(), ids=CASES)
def test_agreement(expected, actual, agreement, shift):
    assert measure(expected, actual, RECIPE) == pytest.approx((agreement, shift), abs=1e-6)


def test_nothing_to_compare():
    with pytest.raises(ExportError, match="sure of nothing"):
        measure([classes(0.4, 0.3, 0.3)], [classes(0.4, 0.3, 0.3)], RECIPE)
