"""Classifiers trained with Caffe: AlexNet, CaffeNet, GoogLeNet, VGG, ResNet, SqueezeNet and what has their layers.

A card of this family has the source `weights`, a .caffemodel, which describes its layers too; and `prototxt` where the
layers are to be those of a deploy file. Caffe's images are BGR, mostly without scaling.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from export.activation import with_activation
from export.caffe.layers import LAYERS
from export.caffe.net import Net, read_net
from export.layers import LayerNetwork, Step, known_layer, try_out
from export.network import Network
from export.options import FamilyOptions
from zoo.errors import ExportError
from zoo.model_card import ModelCard


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    output: str | None = None


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Rebuild the layers of `weights` (or of `prototxt`) that lead to the logits.

    Options: `output`, the name of the blob with the logits; without it, what the last layer (softmax, loss or accuracy)
    reads.

    Raises:
        ExportError: a file is not what it should be, or has a layer or setting that is not known.
    """
    output = card.options.get("output")
    if not {"weights"} <= set(files) <= {"weights", "prototxt"} or set(card.options) - {"output"}:
        raise ExportError(
            f"{card.name}: a card of the family `caffe` has the sources `weights` and perhaps `prototxt`, and no "
            f"option but `output`; this one has {sorted(files)} and {sorted(card.options)}"
        )
    net = read_net(files["weights"], files.get("prototxt"), None if output is None else str(output))
    height, width = card.recipe.height, card.recipe.width
    channels = 1 if card.normalise.channels == "grey" else 3
    classifier = rebuild(net)
    problem = (
        f"{card.name}: the layers of {files['weights']} do not fit together, or do not take images of {height} x "
        f"{width}, the size of the card's recipe"
    )
    try_out(classifier, channels, height, width, problem)
    return Network(with_activation(classifier, height, width), f"torch {torch.__version__}", original=False)


def rebuild(net: Net) -> nn.Module:
    """Rebuild a net in torch: float32 [N, 3, H, W], or one channel, -> logits [N, C].

    Raises:
        ExportError: a layer, or a setting of one, is not known.
    """
    return CaffeClassifier(net.image, steps_of(net), [net.answer]).eval()


def steps_of(net: Net) -> list[Step]:
    """Return the layers of a net in torch; raises as `rebuild` does."""
    return [
        Step(layer.bottoms, layer.tops, known_layer(LAYERS, layer.kind, layer.where)(layer)) for layer in net.layers
    ]


class CaffeClassifier(LayerNetwork):
    """float32 [N, 3, H, W], or one channel, -> logits [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        (answer,) = self.run(x)
        return answer.flatten(1)
