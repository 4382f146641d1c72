"""EfficientNet-Lite: the published sizes, and the real weights."""

import msgspec
import pytest
import torch

from export.families.efficientnet_lite import SCALES, EfficientNetLite, build
from export.heads import Pixels
from zoo import catalog
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.sources import fetch_all


# Millions of parameters, from the table of the TPU reference models.
@pytest.mark.parametrize(("architecture", "millions"), [*zip(SCALES, (4.7, 5.4, 6.1, 8.2, 13.0), strict=True)])
def test_as_large_as_published(architecture, millions):
    with torch.device("meta"):
        network = EfficientNetLite(SCALES[architecture], classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_real_weights_find_the_espresso(make_images):
    card = catalog.find("efficientnet_lite0")
    network = build(card, fetch_all(card.sources)).module
    images = make_images(card.recipe, "coffee", "chelsea")
    with torch.no_grad():
        probabilities = network(Pixels(card.normalise)(torch.from_numpy(images)))["logits"].softmax(1)
    labels = read_labels(card.labels)
    assert labels[probabilities[0].argmax()] == "espresso"
    assert probabilities[0].max() == pytest.approx(0.951, abs=0.001)
    assert "cat" in labels[probabilities[1].argmax()]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("efficientnet_lite1", "is no checkpoint of efficientnet_lite1. Missing key"),
        ("efficientnet_b0", "the option `architecture` is 'efficientnet_b0', expected one of efficientnet_lite0"),
        (None, "the option `architecture` is ''"),
    ],
)
def test_another_architecture_is_refused(architecture, message):
    card = catalog.find("efficientnet_lite0")
    options = {"architecture": architecture} if architecture else {}
    with pytest.raises(ExportError, match=message):
        build(msgspec.structs.replace(card, options=options), fetch_all(card.sources))
