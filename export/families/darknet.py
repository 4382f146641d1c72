"""Detectors trained with Darknet: YOLOv3, YOLOv4 and their tiny forms. The cfg decides what is built, not the name.

A card of this family has the sources `cfg` and `weights` and no options. Its recipe's height and width may differ from
the cfg's: these networks take any size that their strides divide.
"""

from pathlib import Path

import torch

from export.darknet.cfg import read_cfg
from export.darknet.network import DarknetNetwork
from export.darknet.weights import WeightsReader
from export.network import Network
from zoo.errors import ExportError
from zoo.model_card import ModelCard


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Read `files["cfg"]` and `files["weights"]` and build the detector for the input of the card's recipe.

    Raises:
        ExportError: the card lacks a file or asks for what the family does not know, a file cannot be read, the cfg has
            a section or option that is not supported, or the weights are not those of the cfg.
    """
    if set(files) != {"cfg", "weights"} or card.options:
        raise ExportError(
            f"{card.name}: a card of the family `darknet` has the sources `cfg` and `weights` and no options, "
            f"but this one has {sorted(files)} and {sorted(card.options)}"
        )
    cfg = read_cfg(files["cfg"])
    channels = 1 if card.normalise.channels == "grey" else 3
    if cfg[0].integer("channels", 3) != channels:
        raise cfg[0].error(
            f"takes images of {cfg[0].text('channels')} channels, but the card's have {channels}", "channels"
        )
    network = DarknetNetwork(cfg, card.recipe.height, card.recipe.width)
    network.load_weights(WeightsReader(files["weights"]))
    return Network(module=network.eval(), reference_name=f"torch {torch.__version__}", original=False)
