"""RoIAlign over a feature pyramid with fixed shapes. `export.torchvision_detection.two_stage` calls it.

Torchvision sorts the boxes by level, which gives each level a number of boxes that depends on the image.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn
from torchvision.ops import roi_align


class PyramidRoIAlign(nn.Module):
    """Pools each box at its level of the pyramid, all levels laid out below each other on one sheet.

    One RoIAlign does for all levels: four, each on all boxes and all but one thrown away, would be four times the
    work. Bilinear samples stay on their level, since boxes are within the image and two repeated columns and rows
    follow each level's last. RoIAlign counts samples beyond the last column or row as zero; only boxes under one cell
    wide have such samples, and there the level is constant, so the share of samples that do count makes it exact.
    """

    scales: Tensor
    tops: Tensor
    ends: Tensor
    steps: Tensor

    def __init__(self, pooler: Any, shapes: list[tuple[int, int]]) -> None:
        """Take over the settings of torchvision's `MultiScaleRoIAlign`.

        Args:
            pooler: which has pooled once, so that it knows its `scales` and `map_levels`.
            shapes: height and width of each of its feature maps.
        """
        super().__init__()
        self.levels = pooler.map_levels.k_max - pooler.map_levels.k_min + 1
        self.map_levels = pooler.map_levels
        self.output_size = pooler.output_size
        self.sampling_ratio = pooler.sampling_ratio
        shapes = shapes[: self.levels]
        heights = torch.tensor([height + 2 for height, _ in shapes])
        samples = self.output_size[0] * self.sampling_ratio
        self.register_buffer("scales", torch.tensor(pooler.scales[: self.levels]), persistent=False)
        self.register_buffer("tops", (heights.cumsum(0) - heights).float(), persistent=False)
        self.register_buffer("ends", torch.tensor([[w, h] for h, w in shapes]).float(), persistent=False)
        self.register_buffer("steps", (torch.arange(samples) + 0.5) / samples, persistent=False)

    def forward(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        """Pool.

        Args:
            features: the pyramid's maps, float32 [N, C, h, w], finest first.
            boxes: [N, R, 4] xyxy in input pixels, within the input.

        Returns:
            float32 [N * R, C, height, width] of the pooler's output size.
        """
        width = features[0].shape[3] + 2
        maps = [F.pad(one, (0, 2, 0, 2), mode="replicate") for one in features[: self.levels]]
        sheet = torch.cat([F.pad(one, (0, width - one.shape[3])) for one in maps], dim=2)
        count = boxes.shape[1]
        image = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None].expand(-1, count, 1)
        flat = boxes.flatten(0, 1)
        level = self.map_levels([flat])
        cells = flat * self.scales[level][:, None]
        down = self.tops[level][:, None] * self.tops.new_tensor([0.0, 1.0, 0.0, 1.0])
        rois = torch.cat([image.flatten(0, 1).float(), cells + down], dim=1)
        pooled: Tensor = roi_align(sheet, rois, self.output_size, 1.0, self.sampling_ratio)
        share = self._share(cells, self.ends[level])
        return pooled * share[:, 1, None, :, None] * share[:, 0, None, None, :]

    def _share(self, cells: Tensor, ends: Tensor) -> Tensor:
        """The share of each bin's samples on the level: boxes [M, 4] and ends [M, 2], in cells -> [M, 2, bins]."""
        start, end = cells[:, :2, None], cells[:, 2:, None]
        samples = start + self.steps * (end - start).clamp(min=1.0)
        on_level = (samples <= ends[..., None]).float()
        return torch.unflatten(on_level, 2, (-1, self.sampling_ratio)).mean(3)
