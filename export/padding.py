"""TensorFlow's SAME padding, which torch has only for a stride of 1. For networks that were trained in TensorFlow."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def same_padding(side: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return how many pixels TensorFlow pads before and after one side, so that the output has ceil(side / stride).

    See "Notes on padding" of tf.nn: where the sum is odd, the extra pixel comes after.
    """
    total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution, float32 [N, C, H, W] in and out, with SAME padding for whatever size it is given."""

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        top, bottom = same_padding(x.shape[-2], kh, sh, dh)
        left, right = same_padding(x.shape[-1], kw, sw, dw)
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
