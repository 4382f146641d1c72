"""SSD, SSDlite, RetinaNet and FCOS of torchvision with fixed shapes.

`export.families.torchvision_detection` builds them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from export.heads import CANDIDATES
from export.torchvision_detection.pairs import best_pairs, rows_of


class OneStage(nn.Module):
    """A dense detector: float32 [N, 3, H, W] -> the `CANDIDATES` best pairs of an anchor and a class.

    Torchvision ranks at most 1,000 pairs of each pyramid level, then merges them. The served graph keeps 1,000 pairs in
    all, and those are the same whether the levels are ranked apart first or not. Of SSD's pairs torchvision keeps 400
    (SSDlite: 300) of each class; here a class may have more, all of them fainter.

    Returns `boxes` [N, K, 4] xyxy in input pixels, clipped to the input, `scores` [N, K] in 0..1, `classes` [N, K].
    """

    anchors: Tensor
    columns: Tensor

    def __init__(self, model: Any, columns: list[int], size: tuple[int, int]) -> None:
        """Build it around torchvision's `SSD`, `RetinaNet` or `FCOS`.

        Args:
            model: in eval mode.
            columns: the network's class columns that are served, in the order of the labels.
            size: height and width of the input, in pixels.
        """
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head
        self.box_coder = model.box_coder
        self.size = size
        self.softmax = isinstance(model, SSD)
        self.centerness = isinstance(model, FCOS)
        if not self.softmax:
            _keep_columns(self.head.classification_head, columns)
        with torch.no_grad():
            images = torch.zeros(1, 3, *size)
            features = list(self.backbone(images).values())
            anchors = model.anchor_generator(ImageList(images, [size]), features)[0]
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raw = self.head(list(self.backbone(x).values()))
        logits = raw["cls_logits"]
        if self.softmax:
            scores, anchors, classes = best_pairs(logits.softmax(2).index_select(2, self.columns), CANDIDATES)
        elif self.centerness:
            both = logits.sigmoid() * raw["bbox_ctrness"].sigmoid()
            scores, anchors, classes = best_pairs(both.sqrt(), CANDIDATES)
        else:
            ranked, anchors, classes = best_pairs(logits, CANDIDATES)
            scores = ranked.sigmoid()
        codes = rows_of(raw["bbox_regression"], anchors).flatten(0, 1)
        near = self.anchors[anchors].flatten(0, 1)
        decode = self.box_coder.decode if self.centerness else self.box_coder.decode_single
        boxes = clip_boxes_to_image(decode(codes, near), self.size)
        return {"boxes": boxes.unflatten(0, (-1, anchors.shape[1])), "scores": scores, "classes": classes}


def _keep_columns(head: Any, columns: list[int]) -> None:
    """Cut the classes that are not served off a classification head of sigmoids, which know nothing of each other."""
    starts = torch.arange(head.num_anchors)[:, None] * head.num_classes
    rows = (starts + torch.tensor(columns)).flatten()
    convolution = head.cls_logits
    convolution.weight = nn.Parameter(convolution.weight[rows].detach())
    convolution.bias = nn.Parameter(convolution.bias[rows].detach())
    convolution.out_channels = len(rows)
    head.num_classes = len(columns)
