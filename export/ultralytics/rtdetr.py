"""Ultralytics' RT-DETR (arXiv 2304.08069) as a plain torch module. `export.families.ultralytics` builds it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from export.ultralytics.layers import Body


class RtDetrNetwork(nn.Module):
    """float32 [N, 3, H, W] -> `boxes` [N, Q, 4] xyxy in input pixels, `scores` [N, Q, C] in 0..1; no NMS is owed.

    The library's head keeps the anchors of the last size that it saw and chooses its objects itself; here they are
    constants of the input's size, and the queries are gathered image by image.
    """

    end2end = True
    anchors: Tensor
    valid: Tensor

    def __init__(self, layers: Iterable[Any], height: int, width: int) -> None:
        """Take the layers of a model, of which the last is the head, for an input that its strides divide."""
        super().__init__()
        layers = list(layers)
        self.body = Body(layers)
        self.head = layers[-1]
        self.size = (height, width)
        with torch.no_grad():
            channels = next(layers[0].parameters()).shape[1]
            maps = self.body.eval()(torch.zeros(1, channels, height, width))
        self.shapes = [list(each.shape[2:]) for each in maps]
        anchors, valid = _anchors(self.shapes)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("valid", valid, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        head = self.head
        maps = [project(each) for project, each in zip(head.input_proj, self.body(x), strict=True)]
        memory = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)
        features = head.enc_output(self.valid * memory)
        best = head.enc_score_head(features).amax(2)
        chosen = best.topk(min(head.num_queries, best.shape[1]), dim=1).indices[..., None]
        queries = features.gather(1, chosen.expand(-1, -1, features.shape[2]))
        anchors = self.anchors.expand(x.shape[0], -1, -1).gather(1, chosen.expand(-1, -1, 4))
        boxes = head.enc_bbox_head(queries) + anchors
        if head.learnt_init_query:
            queries = head.tgt_embed.weight[None].expand(x.shape[0], -1, -1)
        boxes, scores = head.decoder(
            queries, boxes, memory, self.shapes, head.dec_bbox_head, head.dec_score_head, head.query_pos_head
        )
        height, width = self.size
        centre, half = boxes[-1][..., :2], boxes[-1][..., 2:] / 2
        corners = torch.cat((centre - half, centre + half), 2) * x.new_tensor((width, height, width, height))
        return {"boxes": corners, "scores": scores[-1].sigmoid()}


def _anchors(shapes: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return one anchor per cell of each map, as logits of centre and size in 0..1 [1, A, 4], and which may be used.

    An anchor is as large as 0.05 of the input on the first map, and twice that on each further one.
    """
    made = []
    for level, (rows, columns) in enumerate(shapes):
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        side = torch.full_like(x, 0.05 * 2**level)
        made.append(torch.stack((x, y, side, side), -1).flatten(0, 1))
    anchors = torch.cat(made)[None]
    valid = ((anchors > 0.01) & (anchors < 0.99)).all(2, keepdim=True)
    return anchors.logit().masked_fill(~valid, torch.inf), valid.float()
