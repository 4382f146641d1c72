"""The `[yolo]` heads of a Darknet network, which decode feature maps. `export.darknet.network` makes them."""

import torch
from torch import Tensor, nn

from export.darknet.cfg import Section
from export.darknet.layers import Shape


class Yolo(nn.Module):
    """Boxes, xyxy in input pixels, and scores, objectness times class probability, of one feature map.

    With t the map's values, c the cell's column and row, s the input pixels per cell and a the anchor in input pixels,
    YOLOv3 has centre = (sigmoid(t_xy) + c) s and size = a exp(t_wh). YOLOv4 stretches the sigmoid by `scale_x_y` around
    0.5. With `new_coords` the convolution before has applied the sigmoid, to all of t, and size = a (2 t_wh)^2.

    Source: arXiv 1804.02767 and 2004.10934, and `yolo_layer.c` of github.com/AlexeyAB/darknet.
    """

    cells: Tensor
    anchors: Tensor
    pixels_per_cell: Tensor

    def __init__(self, section: Section, given: Shape, image: Shape) -> None:
        """Build it for a feature map of shape `given` of images of shape `image`.

        Raises:
            ExportError: the section contradicts itself or the feature map.
        """
        super().__init__()
        anchors = _anchors(section)
        self.classes = section.integer("classes", 20, minimum=1)
        self.scale_x_y = section.number("scale_x_y", 1.0)
        self.new_coords = section.integer("new_coords", 0) != 0
        self.split = (len(anchors), 5 + self.classes)
        if given.channels != len(anchors) * (5 + self.classes):
            raise section.error(
                f"reads {given.channels} channels, but its {len(anchors)} anchors x (5 + {self.classes} classes) need "
                f"{len(anchors) * (5 + self.classes)}: the `filters` before it do not fit its `mask` and `classes`"
            )
        rows, columns = torch.meshgrid(torch.arange(given.height), torch.arange(given.width), indexing="ij")
        cells = torch.stack([columns, rows], dim=-1).flatten(0, 1).repeat_interleave(len(anchors), dim=0)
        scale = torch.tensor([image.width / given.width, image.height / given.height])
        self.register_buffer("cells", cells.float(), persistent=False)
        self.register_buffer("anchors", anchors.repeat(given.height * given.width, 1), persistent=False)
        self.register_buffer("pixels_per_cell", scale, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a map [N, anchors * (5 + classes), h, w] into boxes [N, A, 4] and scores [N, A, classes].

        A is h * w * anchors, by row, column, anchor.
        """
        x = torch.unflatten(x, 1, self.split).permute(0, 3, 4, 1, 2).flatten(1, 3)
        centres, sizes, objectness, classes = x[..., :2], x[..., 2:4], x[..., 4:5], x[..., 5:]
        if self.new_coords:
            sizes = self.anchors * (2 * sizes).square()
        else:
            centres, objectness, classes = centres.sigmoid(), objectness.sigmoid(), classes.sigmoid()
            sizes = self.anchors * sizes.exp()
        centres = self.scale_x_y * centres - 0.5 * (self.scale_x_y - 1)
        centres = (centres + self.cells) * self.pixels_per_cell
        return torch.cat([centres - 0.5 * sizes, centres + 0.5 * sizes], dim=-1), objectness * classes


def _anchors(section: Section) -> Tensor:
    """The anchors that `mask` picks, float32 [number, 2], width and height in input pixels."""
    total = section.integer("num", 1, minimum=1)
    numbers = section.numbers("anchors")
    mask = section.integers("mask", ",".join(map(str, range(total))))
    if len(numbers) < 2 * total:
        raise section.error(f"`anchors` has {len(numbers)} numbers, but `num={total}` needs {2 * total}", "anchors")
    if not all(0 <= number < total for number in mask):
        raise section.error(
            f"`mask` is {section.text('mask')!r}, but `num` says that there are {total} anchors", "mask"
        )
    return torch.tensor([numbers[2 * number : 2 * number + 2] for number in mask])
