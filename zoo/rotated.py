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
    return _overlap(
        tuple(value[:, None] for value in _moments(one)), tuple(value[None, :] for value in _moments(other))
    )


def suppress(boxes: npt.NDArray[Any], classes: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that no better one of their class overlaps by more than a threshold.

    As in Ultralytics (Fast NMS, arXiv 1904.02689), a box that is itself left out leaves out others, too: fewer boxes
    stay than by greedy suppression.

    Args:
        boxes: [K, 5], the best first.
        classes: [K], class ids.
        threshold: 0 to 1.
    """
    moments = _moments(boxes)
    better, worse = np.nonzero(np.triu(_may_overlap(boxes, threshold) & (classes[:, None] == classes[None, :]), k=1))
    over = _overlap(tuple(m[better] for m in moments), tuple(m[worse] for m in moments)) > threshold
    kept = np.ones(len(boxes), np.bool_)
    kept[worse[over]] = False
    return np.flatnonzero(kept)


def _may_overlap(boxes: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which boxes are near enough to each other, [K, K]: for the others there is no need to compute ProbIoU.

    The Bhattacharyya distance is at least |d|^2 / (4 v), where d leads from centre to centre and v is the largest
    variance of the summed distributions in any direction, at most that of the longest sides.
    """
    x, y, width, height, _ = np.asarray(boxes, np.float64).reshape(-1, 5).T
    if threshold <= 0:
        return np.ones((len(x), len(x)), np.bool_)
    farthest = min(_FARTHEST, -np.log1p(-((1 - threshold) ** 2))) if threshold < 1 else 0.0
    variance = np.maximum(np.abs(width), np.abs(height)) ** 2 / 12
    squared = (x[:, None] - x[None, :]) ** 2 + (y[:, None] - y[None, :]) ** 2
    near: npt.NDArray[np.bool_] = squared <= 4.04 * farthest * (variance[:, None] + variance[None, :]) + 1
    return near


_Moments = tuple[Floats, ...]
"""Centre x, y and covariance a, b, c of boxes: [[a, c], [c, b]]."""


def _overlap(one: _Moments, other: _Moments) -> Floats:
    """Return the ProbIoU of boxes whose moments have shapes that fit together."""
    (x0, y0, a0, b0, c0), (x1, y1, a1, b1, c1) = one, other
    a, b, c, x, y = a0 + a1, b0 + b1, c0 + c1, x0 - x1, y0 - y1
    determinant = a * b - c * c
    squared = (a * y * y + b * x * x - 2 * c * x * y) / (determinant + _TINY)  # Mahalanobis, of the summed covariances
    own = np.maximum(a0 * b0 - c0 * c0, 0) * np.maximum(a1 * b1 - c1 * c1, 0)
    distance = squared / 4 + np.log(determinant / (4 * np.sqrt(own) + _TINY) + _TINY) / 2  # Bhattacharyya
    overlap: Floats = 1 - np.sqrt(1 - np.exp(-np.clip(distance, _TINY, _FARTHEST)) + _TINY)
    return overlap


def _moments(boxes: npt.NDArray[Any]) -> _Moments:
    """Return the moments of points that are spread evenly over each box."""
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
