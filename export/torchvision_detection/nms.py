"""Non-maximum suppression by matrices, for proposals inside a graph. `export.torchvision_detection.two_stage` calls it.

ONNX's NonMaxSuppression has a data-dependent shape, which forbids CUDA graphs; this has none.
"""

import torch
from torch import Tensor


def suppress(boxes: Tensor, valid: Tensor, threshold: float, rounds: int) -> Tensor:
    """Say which boxes greedy non-maximum suppression keeps.

    A box is kept where no kept box before it overlaps it. Taken as an equation and solved by iteration from "all are
    kept", every round settles at least one box more, and in practice whole generations: a box is right once those that
    overlap it are. After an even number of rounds the answer holds every box that greedy suppression keeps, so what has
    not settled is at worst a duplicate more, never an object less.

    Source: Cluster-NMS, arXiv 2005.03572.

    Args:
        boxes: float32 [..., K, 4] xyxy, best first.
        valid: bool [..., K]; others are not kept and suppress nothing.
        threshold: an IoU above it is too much.
        rounds: of the iteration, an even number; K always suffice.

    Returns:
        bool [..., K].
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[..., None], x2[..., None, :]) - torch.maximum(x1[..., None], x1[..., None, :])
    height = torch.minimum(y2[..., None], y2[..., None, :]) - torch.maximum(y1[..., None], y1[..., None, :])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    iou = intersection / (area[..., None] + area[..., None, :] - intersection)
    rank = torch.arange(boxes.shape[-2], device=boxes.device)
    rivals = ((iou > threshold) & (rank < rank[:, None])).float()  # [..., K, K]: row overlaps an earlier column
    keep = valid
    for _ in range(rounds):
        keep = valid & ((rivals @ keep[..., None].float())[..., 0] == 0)
    return keep
