"""Builds a Darknet network in torch from the sections of its cfg. `export.families.darknet` calls it.

Each layer is a module, and each has its `sources`, the numbers of the layers that it reads: the cfg's wiring as data.
"""

import torch
from torch import Tensor, nn

from export.darknet.cfg import Section
from export.darknet.layers import Convolutional, MaxPool, Route, Shape, Shortcut, Upsample
from export.darknet.weights import WeightsReader
from export.darknet.yolo import Yolo
from zoo.errors import ExportError

_Layer = Convolutional | MaxPool | Route | Shortcut | Upsample
_LAYERS: dict[str, type[_Layer]] = {
    "convolutional": Convolutional,
    "maxpool": MaxPool,
    "route": Route,
    "shortcut": Shortcut,
    "upsample": Upsample,
}


class DarknetNetwork(nn.Module):
    """A detector as its cfg describes it.

    Takes float32 [N, channels, height, width] in 0..1 and returns `boxes`, float32 [N, A, 4], xyxy in input pixels, not
    clipped to the input, and `scores`, float32 [N, A, classes] in 0..1, objectness times class probability. The A
    candidates stand in Darknet's order: by `[yolo]` layer, row, column, anchor.

    Attributes:
        sections: one per layer; `[net]` is not among them.
        sources: per layer, the numbers of the layers that it reads; -1 is the image.
    """

    def __init__(self, cfg: tuple[Section, ...], height: int, width: int) -> None:
        """Build it for an input of `height` x `width` pixels, which need not be the cfg's own, with random weights.

        Raises:
            ExportError: naming the section that does not fit.
        """
        super().__init__()
        net, *self.sections = cfg
        image = Shape(net.integer("channels", 3, minimum=1), height, width)
        shapes = {-1: image}
        self.layers = nn.ModuleList()
        self.sources = [_sources(section) for section in self.sections]
        for section, sources in zip(self.sections, self.sources, strict=True):
            if not shapes.keys() >= set(sources):
                raise section.error("reads a [yolo] layer, but those end their branch: put a [route] between them")
            inputs = [shapes[source] for source in sources]
            if section.kind == "yolo":
                self.layers.append(Yolo(section, inputs[0], image))
                continue
            layer = _LAYERS[section.kind](section, inputs)
            if min(layer.shape) < 1:
                raise section.error(f"turns {inputs[0]} into {layer.shape}: an input of {image} is too small")
            self.layers.append(layer)
            shapes[section.index] = layer.shape
        classes = {layer.classes for layer in self.layers if isinstance(layer, Yolo)}
        if len(classes) != 1:
            found = ", ".join(map(str, sorted(classes))) or "no such section"
            raise ExportError(f"{net.path}: a detector has [yolo] sections with equal `classes`; here: {found}")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = {-1: images}
        boxes, scores = [], []
        for index, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            output = layer(*(outputs[source] for source in sources))
            if isinstance(layer, Yolo):
                boxes.append(output[0])
                scores.append(output[1])
            else:
                outputs[index] = output
        return {"boxes": torch.cat(boxes, dim=1), "scores": torch.cat(scores, dim=1)}

    def load_weights(self, reader: WeightsReader) -> None:
        """Fill the convolutions from a weights file, which must hold exactly as many values as they need.

        Raises:
            ExportError: naming the section for which the file is too short, or after which bytes are left.
        """
        last = self.sections[0]
        for section, layer in zip(self.sections, self.layers, strict=True):
            if isinstance(layer, Convolutional):
                last = section
                layer.load_weights(reader, str(section))
        reader.finish(str(last))


def _sources(section: Section) -> tuple[int, ...]:
    """The numbers of the layers that a section reads; in a cfg negative numbers count back from the section itself."""
    if section.kind not in ("route", "shortcut"):
        return (section.index - 1,)
    key = "layers" if section.kind == "route" else "from"
    numbers = section.integers(key)
    sources = tuple(number if number >= 0 else section.index + number for number in numbers)
    if not all(0 <= source < section.index for source in sources):
        raise section.error(
            f"`{key}` is {section.text(key)!r}, but the layers before it are 0 to {section.index - 1}", key
        )
    return sources if section.kind == "route" else (section.index - 1, *sources)
