"""The options of cards: what is misspelt, or of another type, is refused by its name before anything is built."""

import importlib

import msgspec
import pytest

from export.options import check_options
from export.pipeline import build
from tests.conftest import needs
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.model_card import TensorCard


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("onnx", {"probabilites": True}, r"no option 'probabilites': .* is `probabilities` meant\?"),
        ("onnx", {"probabilities": "false"}, r"Expected `bool`, got `str` - at `\$\.probabilities`"),
        ("onnx", {"probabilities": 1}, r"Expected `bool`, got `int`"),
        ("onnx", {"output": 1959}, r"Expected `str \| null`, got `int` - at `\$\.output`"),
        ("yolo_onnx", {"layot": "yolov8"}, "is `layout` meant"),
        ("yolo_onnx", {"one_by_one": "yes"}, "Expected `bool`"),
        ("torchvision", {"architecture": "alexnet", "transform_inputs": True}, "is `transform_input` meant"),
        ("torchvision_detection", {"architecture": "x", "batch_norm_eps": "0"}, "Expected `float | null`, got `str`"),
        ("efficientnet_lite", {"arch": "efficientnet_lite0"}, "has the options architecture"),
        ("timm", {"architecture": 18}, "Expected `str`, got `int`"),
        ("libreyolo", {"modell": "yolox"}, "is `model` meant"),
        ("yolox", {"size": "s"}, "has the options model"),
        ("transformers", {"model": "rt_detr"}, "has no options"),
        ("caffe", {"outputs": "prob"}, "is `output` meant"),
        ("darknet", {"size": 1}, "has no options"),
        ("lenet", {"a": 1}, "has no options"),
        ("paddle", {"a": 1}, "has no options"),
        ("tflite", {"a": 1}, "has no options"),
        ("ultralytics", {"a": 1}, "has no options"),
    ],
)
def test_options_are_typed_per_family(family, options, message):
    extras = {"timm", "libreyolo", "ultralytics", "tflite", "transformers", "yolox"}
    if family in extras:
        needs(family)
    card = msgspec.structs.replace(catalog.find("mobilenet_v2"), family=family, options=options)
    with pytest.raises(ExportError, match=message):
        build(card, {})


def test_every_card_of_the_zoo_has_options_that_its_family_knows():
    for card in catalog.cards():
        check_options(card, importlib.import_module(f"export.families.{card.family}"))


@pytest.mark.parametrize("size", ["5", 0, -1, True, 1.5])
def test_the_options_of_tensors_are_sizes(size):
    card = catalog.find("mobilenet_v2")
    with pytest.raises(ValueError, match="it gives the size of a free dimension, from 1"):
        TensorCard(
            name="x", version="1", task="tensors", title="", licence=card.licence, sources={}, options={"T": size}
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"interpolation": "nearest"}, "Recipe: Invalid enum value 'nearest' - `interpolation` is 'nearest'"),
        ({"height": 0}, "Expected `int` >= 1 - `height` is 0"),
        ({"width": 100_000}, "Expected `int` <= 4096"),
        ({"pad": (1, 2, 300)}, "`pad` is"),
        ({"resize": "squash"}, "`resize` is 'squash'"),
        ({"resize": "crop"}, "`short_side` belongs to"),
    ],
)
def test_what_is_made_in_code_is_checked_as_what_is_read(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**({"height": 224, "width": 224, "resize": "stretch"} | fields))
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(Recipe(224, 224, "stretch"), **fields)
