"""The real YOLOv4-tiny on a real photo."""

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from export.families.darknet import build
from export.reference import Reference
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.model_card import Normalise
from zoo.recipe import apply_exact, placement
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def card():
    return catalog.find("yolov4_tiny")


@pytest.fixture(scope="module")
def files(card) -> dict[str, Path]:
    return fetch_all(card.sources, progress=False)


@pytest.mark.parametrize(
    ("photo", "label", "score", "box"),
    [("coffee", "cup", 0.938, (167, 15, 412, 291)), ("chelsea", "cat", 0.621, (15, 0, 431, 292))],
)
def test_yolov4_tiny_finds_the_object(card, files, photo, label, score, box):
    with Image.open(catalog.sample(photo, progress=False)) as image:
        pixels = apply_exact(card.recipe, image.convert("RGB"))
        where = placement(card.recipe, *image.size)
    network = build(card, files)
    assert isinstance(network.module, torch.nn.Module)
    with torch.inference_mode():
        outputs = network.module(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    boxes, scores = outputs["boxes"][0].numpy(), outputs["scores"][0].numpy()
    assert (boxes.shape, scores.shape) == ((2535, 4), (2535, 80))
    best, class_id = np.unravel_index(scores.argmax(), scores.shape)
    assert read_labels(card.labels)[class_id] == label
    assert scores[best, class_id] == pytest.approx(score, abs=0.002)
    offset, scale = np.array([where.offset_x, where.offset_y] * 2), np.array([where.scale_x, where.scale_y] * 2)
    np.testing.assert_allclose((boxes[best] - offset) / scale, box, atol=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"score": 0.5}}, r"sources `cfg` and `weights` and no options, but this one has .* \['score'\]"),
        ({"normalise": Normalise(channels="grey")}, "takes images of 3 channels, but the card's have 1"),
        ({"recipe": Recipe(400, 400, "stretch")}, r"\[route\] joins layers of different height or width: .* 25 x 25"),
    ],
)
def test_cards_that_do_not_fit_are_refused(card, files, change, message):
    with pytest.raises(ExportError, match=message):
        build(replace(card, **change), files)


def test_files_of_another_network_are_refused(card, files, tmp_path):
    other = tmp_path / "other.cfg"
    other.write_text(files["cfg"].read_text().replace("filters=512", "filters=510"))
    with pytest.raises(ExportError, match="belongs to another"):
        build(card, {**files, "cfg": other})
    with pytest.raises(ExportError, match=r"has \['weights'\]"):
        build(card, {"weights": files["weights"]})


@pytest.mark.parametrize("count", [79, 81])
def test_labels_of_another_length_are_refused(card, files, tmp_path, count):
    labels = tmp_path / "names.txt"
    labels.write_text("".join(f"class {i}\n" for i in range(count)))
    card = replace(card, labels=str(labels))
    reference = Reference(card, build(card, files), len(read_labels(card.labels)))
    with pytest.raises(ExportError, match=rf"the network answers .*, 80\).* with the {count} labels of .*names\.txt"):
        reference(np.zeros((1, 416, 416, 3), np.uint8))
