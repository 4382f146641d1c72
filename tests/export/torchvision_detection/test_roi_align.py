"""RoIAlign over one sheet against torchvision's over the sorted levels, also where boxes are slivers at the edge."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from export.torchvision_detection.roi_align import PyramidRoIAlign


def boxes_in(height: int, width: int, count: int) -> torch.Tensor:
    """Boxes of all sizes; half of them touch the right or lower edge."""
    limit = torch.tensor([width, height]).float()
    sides = limit * torch.rand(count, 2) ** 4
    start = (limit - sides) * torch.rand(count, 2)
    start[: count // 4, 0] = (limit - sides)[: count // 4, 0]
    start[count // 4 : count // 2, 1] = (limit - sides)[count // 4 : count // 2, 1]
    return torch.cat([start, start + sides], dim=1)


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (32,), (32, 32)])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 320)])
def test_as_torchvision_pools(strides, height, width):
    torch.manual_seed(0)
    maps = {str(i): torch.randn(2, 5, height // stride, width // stride) for i, stride in enumerate(strides)}
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    boxes = torch.stack([boxes_in(height, width, 400), boxes_in(height, width, 400)])
    expected = pooler(maps, list(boxes), [(height, width)] * 2)
    ours = PyramidRoIAlign(pooler, [tuple(one.shape[2:]) for one in maps.values()])
    torch.testing.assert_close(ours(list(maps.values()), boxes), expected, atol=2e-4, rtol=0)


def test_a_box_of_no_size_is_pooled_too():
    pooler = MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=2)
    maps = {"0": torch.ones(1, 2, 16, 16), "1": torch.ones(1, 2, 8, 8)}
    pooler(maps, [torch.tensor([[0.0, 0, 1, 1]])], [(64, 64)])
    pooled = PyramidRoIAlign(pooler, [(16, 16), (8, 8)])(list(maps.values()), torch.zeros(1, 3, 4))
    assert pooled.shape == (3, 2, 7, 7)
    assert pooled.isfinite().all()
