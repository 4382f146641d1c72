"""Torchvision's Faster R-CNN with fixed shapes. `export.families.torchvision_detection` builds it."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from export.heads import CANDIDATES
from export.torchvision_detection.nms import suppress
from export.torchvision_detection.pairs import best_pairs, rows_of
from export.torchvision_detection.roi_align import PyramidRoIAlign

ROUNDS = 20
"""Of the proposals' suppression."""
_SMALLEST = 1e-2  # side of an object, in pixels, as torchvision has it


class TwoStage(nn.Module):
    """Faster R-CNN: float32 [N, 3, H, W] -> the `CANDIDATES` best pairs of a proposal and a class, each with its box.

    The number of proposals is fixed: where suppression leaves fewer, suppressed ones fill up, with a score of 0.

    Returns `boxes` [N, K, 4] xyxy in input pixels, clipped to the input, `scores` [N, K] in 0..1, `classes` [N, K].
    """

    columns: Tensor

    def __init__(self, model: Any, columns: list[int], size: tuple[int, int]) -> None:
        """Build it around torchvision's `FasterRCNN`.

        Args:
            model: in eval mode.
            columns: the network's class columns that are served, in the order of the labels.
            size: height and width of the input, in pixels.
        """
        super().__init__()
        self.backbone = model.backbone
        self.size = size
        self.rpn = model.rpn
        self.box_head = model.roi_heads.box_head
        self.box_predictor = model.roi_heads.box_predictor
        self.box_coder = model.roi_heads.box_coder
        pooler = model.roi_heads.box_roi_pool
        with torch.no_grad():
            images = torch.zeros(1, 3, *size)
            features = self.backbone(images)
            maps = list(features.values())
            anchors = self.rpn.anchor_generator(ImageList(images, [size]), maps)[0]
            pooler(features, [torch.tensor([[0.0, 0.0, 1.0, 1.0]])], [size])
        pooled = [name for name in features if name in pooler.featmap_names]
        self.pooled = len(pooled)
        self.roi_align = PyramidRoIAlign(pooler, [tuple(features[name].shape[2:]) for name in pooled])
        per_cell = self.rpn.anchor_generator.num_anchors_per_location()
        counts = [one.shape[2] * one.shape[3] * n for one, n in zip(maps, per_cell, strict=True)]
        self.levels = len(counts)
        for level, one in enumerate(anchors.split(counts)):
            self.register_buffer(f"anchors_{level}", one, persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = list(self.backbone(x).values())
        proposals, valid = self.propose(features)
        count = proposals.shape[1]
        logits, codes = self.box_predictor(self.box_head(self.roi_align(features[: self.pooled], proposals)))
        scores = logits.softmax(1).index_select(1, self.columns).unflatten(0, (-1, count)) * valid[..., None]
        scores, rows, classes = best_pairs(scores, CANDIDATES)
        codes = codes.unflatten(1, (-1, 4))  # [N * R, classes of the network, 4]
        pairs = rows * codes.shape[1] + self.columns[classes]
        codes = rows_of(codes.flatten(0, 1).unflatten(0, (-1, count * codes.shape[1])), pairs)
        boxes = self._decode(self.box_coder, codes, rows_of(proposals, rows))
        return {"boxes": boxes, "scores": scores * _large(boxes, _SMALLEST), "classes": classes}

    def propose(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The region proposal network's boxes [N, R, 4] xyxy in input pixels, best first, and which of them count."""
        limit = self.rpn.pre_nms_top_n()
        levels = []
        for level, (objectness, deltas) in enumerate(zip(*self.rpn.head(features), strict=True)):
            scores = objectness.permute(0, 2, 3, 1).flatten(1)  # row, column, anchor
            codes = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            scores, best = scores.topk(min(limit, scores.shape[1]), dim=1)
            anchors = getattr(self, f"anchors_{level}")[best]
            boxes = self._decode(self.rpn.box_coder, rows_of(codes, best), anchors)
            levels.append((boxes, scores.sigmoid()))
        most = max(scores.shape[1] for _, scores in levels)
        boxes = torch.stack([F.pad(one, (0, 0, 0, most - one.shape[1])) for one, _ in levels], dim=1)
        scores = torch.stack([F.pad(one, (0, most - one.shape[1]), value=-1.0) for _, one in levels], dim=1)
        valid = _large(boxes, self.rpn.min_size) & (scores >= max(self.rpn.score_thresh, 0.0))
        keep = suppress(boxes, valid, self.rpn.nms_thresh, ROUNDS)
        scores = torch.where(keep, scores, -1.0).flatten(1)
        scores, best = scores.topk(min(self.rpn.post_nms_top_n(), scores.shape[1]), dim=1)
        return rows_of(boxes.flatten(1, 2), best), scores >= 0

    def _decode(self, box_coder: Any, codes: Tensor, near: Tensor) -> Tensor:
        """Boxes [N, K, 4], clipped to the input, from their codes and the boxes that these refer to."""
        boxes: Tensor = clip_boxes_to_image(box_coder.decode_single(codes.flatten(0, 1), near.flatten(0, 1)), self.size)
        return torch.unflatten(boxes, 0, (-1, codes.shape[1]))


def _large(boxes: Tensor, least: float) -> Tensor:
    """Say of boxes [..., 4] whether both sides are at least so many pixels long."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)
