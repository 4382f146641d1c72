"""Rotated boxes: their corners, their overlap, and non-maximum suppression. `export` and `service` share it.

A rotated box is (x, y, width, height, angle): its centre, its sides and the angle, in radians, by which the object's
own x axis, along `width`, is turned from the image's x axis towards its y axis: clockwise as one sees it, since y
points down. A box that is turned by pi is the same box, so angles are given in [-pi/4, 3pi/4), as Ultralytics'
networks do.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TINY = 1e-7  # keeps boxes without an area from dividing by 0, as in Ultralytics
_FARTHEST = 100.0  # Bhattacharyya distance of boxes that have nothing in common


def corners(boxes: npt.NDArray[Any]) -> Floats:
    """Return the four corners of rotated boxes, clockwise from the top left of the object's own frame.

    Args:
        boxes: [K, 5], (x, y, width, height, angle).

    Returns:
        float64 [K, 4, 2], x and y.
    """
    x, y, width, height, angle = np.asarray(boxes, np.float64).reshape(-1, 5).T
    across = np.stack([np.cos(angle) * width, np.sin(angle) * width], axis=1) / 2
    down = np.stack([-np.sin(angle) * height, np.cos(angle) * height], axis=1) / 2
    centre = np.stack([x, y], axis=1)
    return np.stack([centre - across - down, centre + across - down, centre + across + down, centre - across + down], 1)


def normal_angle(angles: npt.NDArray[Any]) -> Floats:
    """Return the angles, in radians, of the same boxes in [-pi/4, 3pi/4)."""
    normal: Floats = (np.asarray(angles, np.float64) + np.pi / 4) % np.pi - np.pi / 4
    return normal


def probiou(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """Return the overlap of each box with each, by ProbIoU (Llerena et al., arXiv 2106.06072).

    A box is taken for the normal distribution with the mean and the covariance of its points; the overlap is 1 minus
    the Hellinger distance of two of them. It is what Ultralytics' rotated detectors were trained and are suppressed by.

    Args:
        one: [K, 5], (x, y, width, height, angle).
        other: [M, 5].

    Returns:
        float64 [K, M], 0 to 1.
    """
    x0, y0, a0, b0, c0 = (value[:, None] for value in _moments(one))
    x1, y1, a1, b1, c1 = (value[None, :] for value in _moments(other))
    a, b, c, x, y = a0 + a1, b0 + b1, c0 + c1, x0 - x1, y0 - y1
    determinant = a * b - c * c
    squared = (a * y * y + b * x * x - 2 * c * x * y) / (determinant + _TINY)  # Mahalanobis, of the summed covariances
    own = np.maximum(a0 * b0 - c0 * c0, 0) * np.maximum(a1 * b1 - c1 * c1, 0)
    distance = squared / 4 + np.log(determinant / (4 * np.sqrt(own) + _TINY) + _TINY) / 2  # Bhattacharyya
    overlap: Floats = 1 - np.sqrt(1 - np.exp(-np.clip(distance, _TINY, _FARTHEST)) + _TINY)
    return overlap


def suppress(boxes: npt.NDArray[Any], classes: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that no better one of their class overlaps by more than a threshold.

    As in Ultralytics (Fast NMS, arXiv 1904.02689), a box that is itself left out leaves out others, too: fewer boxes
    stay than by greedy suppression.

    Args:
        boxes: [K, 5], the best first.
        classes: [K], class ids.
        threshold: 0 to 1.
    """
    better = np.triu(probiou(boxes, boxes) > threshold, k=1) & (classes[:, None] == classes[None, :])
    return np.flatnonzero(~better.any(axis=0))


def _moments(boxes: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return each box's centre (x, y) and covariance [[a, c], [c, b]], as those of points spread evenly over it."""
    x, y, width, height, angle = np.asarray(boxes, np.float64).reshape(-1, 5).T
    cosine, sine = np.cos(angle), np.sin(angle)
    along, across = width**2 / 12, height**2 / 12
    return (
        x,
        y,
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )
