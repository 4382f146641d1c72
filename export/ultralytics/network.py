"""An Ultralytics network as a plain torch module: its layers as they were trained, with our own decoding of its head.

`export.families.ultralytics` builds it. The library's head caches its anchors, answers differently when it is exported
and chooses its objects itself; none of that converts to a graph with a free batch.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_ROTATED = ("OBB", "OBB26")  # the second answers angles, the first what a sigmoid makes them of


class UltralyticsNetwork(nn.Module):
    """float32 [N, 3, H, W] -> `boxes` [N, A, 4] xyxy in input pixels, `scores` [N, A, C] in 0..1.

    Segmenters also answer `coefficients` [N, A, M] and `prototypes` [N, M, h, w], and networks for poses `keypoints`
    [N, A, P, 3]: x, y in input pixels, and a score, which is 1 where the network gives none. Networks for rotated boxes
    answer `boxes` [N, A, 5] (see `zoo.rotated`). A is the number of cells of all maps.

    A box is told by the distances from its cell's centre to its left, top, right and bottom side, in cells (FCOS, arXiv
    1904.01355), each the mean of a distribution over `reg_max` whole distances (arXiv 2006.04388) or, where that is 1,
    a number. Those of a rotated box are told in its own frame, and its angle beside them. A keypoint is told by its way
    from the cell's centre. Where the network has a one-to-one head (YOLOv10, arXiv 2405.14458, and 26), that one
    answers: each object has one box, and no suppression is owed.

    Attributes:
        end2end: whether the one-to-one head answers.
    """

    centres: Tensor
    strides: Tensor

    def __init__(self, layers: Iterable[Any], height: int, width: int) -> None:
        """Take the layers of a model, of which the last is the head, for an input that its strides divide."""
        super().__init__()
        *body, head = layers
        self._sources: list[int | list[int]] = [layer.f for layer in (*body, head)]
        self.body = nn.ModuleList(body)
        self.end2end: bool = getattr(head, "one2one_cv2", None) is not None
        prefix = "one2one_" if self.end2end else ""
        self._boxes: nn.ModuleList = getattr(head, f"{prefix}cv2")
        self._classes: nn.ModuleList = getattr(head, f"{prefix}cv3")
        self._more: nn.ModuleList | None = getattr(head, f"{prefix}cv4", None)  # of masks, keypoints or angles
        if (last := getattr(head, f"{prefix}cv4_kpts", None)) is not None:  # 26 has a layer of its own for keypoints
            self._more = nn.ModuleList(nn.Sequential(*parts) for parts in zip(self._more or (), last, strict=True))
        self._head = type(head).__name__
        self._points: tuple[int, int] | None = getattr(head, "kpt_shape", None)
        self._bins: int = head.reg_max
        self._prototypes = getattr(head, "proto", None)
        self._all_maps = hasattr(self._prototypes, "feat_refine")  # 26 makes prototypes of all maps, 11 of the finest
        cells, strides = [], []
        for stride in head.stride.tolist():
            rows, columns = torch.arange(height // int(stride)), torch.arange(width // int(stride))
            grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).flatten(0, 1)
            cells.append(grid + 0.5)
            strides.append(torch.full((len(grid), 1), stride))
        self.register_buffer("centres", torch.cat(cells), persistent=False)
        self.register_buffer("strides", torch.cat(strides), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        made: list[Tensor] = []
        for layer, source in zip(self.body, self._sources[:-1], strict=True):
            x = layer(inputs_of(source, x, made))
            made.append(x)
        maps = inputs_of(self._sources[-1], x, made)
        distances = _concatenated(self._boxes, maps)
        if self._bins > 1:
            weights = torch.unflatten(distances, 2, (4, self._bins)).softmax(3)
            distances = weights @ torch.arange(self._bins, dtype=weights.dtype)
        left_top, right_bottom = distances.chunk(2, dim=2)
        more = None if self._more is None else _concatenated(self._more, maps)
        if more is not None and self._head in _ROTATED:
            boxes = self._rotated(left_top, right_bottom, more)
        else:
            boxes = torch.cat([self.centres - left_top, self.centres + right_bottom], dim=2) * self.strides
        answers = {"boxes": boxes, "scores": _concatenated(self._classes, maps).sigmoid()}
        if more is not None and self._prototypes is not None:
            answers["coefficients"] = more
            answers["prototypes"] = self._prototypes(maps if self._all_maps else maps[0])
        if more is not None and self._points is not None:
            answers["keypoints"] = self._keypoints(torch.unflatten(more, 2, tuple(self._points)))
        return answers

    def _rotated(self, left_top: Tensor, right_bottom: Tensor, raw: Tensor) -> Tensor:
        """Boxes (x, y, width, height, angle) [N, A, 5] from distances in cells and what the angle's branch answers."""
        angle = raw if self._head == "OBB26" else (raw.sigmoid() - 0.25) * torch.pi
        x, y = ((right_bottom - left_top) / 2).chunk(2, dim=2)  # from the cell's centre to the box's, in its own frame
        turned = torch.cat([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=2)
        return torch.cat([(self.centres + turned) * self.strides, (left_top + right_bottom) * self.strides, angle], 2)

    def _keypoints(self, raw: Tensor) -> Tensor:
        """Keypoints [N, A, P, 3] from [N, A, P, 2 or 3]."""
        ways = raw[..., :2] if self._head == "Pose26" else raw[..., :2] * 2 - 0.5
        places = (ways + self.centres[:, None]) * self.strides[:, None]
        scores = raw[..., 2:].sigmoid() if raw.shape[3] == 3 else torch.ones_like(raw[..., :1])
        return torch.cat([places, scores], dim=3)


def inputs_of(source: int | list[int], previous: Tensor, made: list[Tensor]) -> Any:
    """What a layer takes: the output before it (-1), that of another layer, or a list of such."""
    if isinstance(source, int):
        return previous if source == -1 else made[source]
    return [previous if number == -1 else made[number] for number in source]


def _concatenated(branches: nn.ModuleList, maps: list[Tensor]) -> Tensor:
    """Run each map's branch; [N, cells of all maps, channels]."""
    answers = [branch(each).flatten(2) for branch, each in zip(branches, maps, strict=True)]
    return torch.cat(answers, dim=2).transpose(1, 2)
