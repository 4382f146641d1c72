"""The real SqueezeNet 1.1, as Caffe trained it."""

import msgspec
import numpy as np
import pytest
import torch

from export.caffe.layers import LAYERS
from export.families.caffe import build
from export.heads import Pixels
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def squeezenet():
    card = catalog.find("squeezenet1_1_caffe")
    return card, fetch_all(card.sources)


# Largest logits, as OpenCV 4.11 computed them from the same file and a deploy file with the same layers.
@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("coffee", {"espresso": 33.96398, "consomme": 30.50802, "cup": 27.09112}),
        ("chelsea", {"Egyptian cat": 29.67483, "tabby": 29.23025}),
    ],
)
def test_squeezenet_answers_as_opencv_does(squeezenet, make_images, photo, expected):
    card, files = squeezenet
    module = build(card, files).module
    with torch.no_grad():
        answers = module(Pixels(card.normalise)(torch.from_numpy(make_images(card.recipe, photo))))
    logits, labels = answers["logits"][0].numpy(), read_labels(card.labels)
    order = np.argsort(-logits)[: len(expected)]
    assert [labels[i] for i in order] == list(expected)
    np.testing.assert_allclose(logits[order], list(expected.values()), atol=1e-3)
    assert answers["activation"].shape == (1, 14, 14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(4, 4, "stretch")}, "do not take images of 4 x 4"),
        ({"options": {"output": "prob"}}, "no layer writes 'prob': correct the option `output`"),
        ({"options": {"mean": 3}}, r"no option but `output`; this one has \['weights'\] and \['mean'\]"),
    ],
)
def test_cards_that_do_not_fit_are_refused(squeezenet, change, message):
    card, files = squeezenet
    with pytest.raises(ExportError, match=message):
        build(msgspec.structs.replace(card, **change), files)


def test_an_unknown_layer_is_named(squeezenet, monkeypatch):
    monkeypatch.delitem(LAYERS, "concat")
    with pytest.raises(
        ExportError, match=r"\.caffemodel: layer 12, Concat 'fire2/concat' is not known\. Known are batch"
    ):
        build(*squeezenet)


def test_layers_that_do_not_fit_together_are_refused(squeezenet, tmp_path):
    card, files = squeezenet
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text('layer { name: "r" type: "ReLU" bottom: "x" bottom: "x" top: "y" }')
    with pytest.raises(ExportError, match=r"do not fit together.* takes 2 positional arguments but 3 were given"):
        build(card, {**files, "prototxt": deploy})


def test_the_layers_of_a_deploy_file(squeezenet, tmp_path):
    card, files = squeezenet
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text(
        'input: "data"\nlayer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"\n'
        "convolution_param { num_output: 64 kernel_size: 3 stride: 2 weight_filler { type: 'xavier' } } }"
    )
    logits = build(card, {**files, "prototxt": deploy}).module(torch.zeros(1, 3, 227, 227))["logits"]
    assert logits.shape == (1, 64 * 113 * 113)
    deploy.write_text(deploy.read_text().replace('name: "conv1"', 'name: "conv_1"'))
    with pytest.raises(ExportError, match=r"deploy\.prototxt: layer 0, Convolution 'conv_1': .* shapes \[\], expected"):
        build(card, {**files, "prototxt": deploy})
