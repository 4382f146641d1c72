"""Real YOLO networks as served graphs, each converted once."""

import importlib.util
from functools import cache
from typing import NamedTuple

import onnxruntime
import pytest

from export.network import Network
from export.reference import Reference
from tests.export.any_batch import convert
from zoo import catalog
from zoo.labels import read_labels
from zoo.model_card import ModelCard
from zoo.recipe import apply_exact
from zoo.sources import fetch_all


class Served(NamedTuple):
    card: ModelCard
    network: Network
    session: onnxruntime.InferenceSession

    def __call__(self, images) -> dict:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {"images": images}), strict=True))


@pytest.fixture(scope="session")
def served():
    """A card of the zoo -> its network and the session of its graph."""
    from PIL import Image

    @cache
    def make(name: str) -> Served:
        card = catalog.find(name)
        if card.family == "ultralytics" and importlib.util.find_spec("ultralytics") is None:
            pytest.skip("the extra `ultralytics` is not installed")
        build = importlib.import_module(f"export.families.{card.family}").build
        network = build(card, fetch_all(card.sources, progress=False))
        reference = Reference(card, network, len(read_labels(card.labels)))
        image = apply_exact(card.recipe, Image.open(catalog.sample("coffee")).convert("RGB"))
        model = convert(card, network, reference.head, reference.raw(image[None].repeat(2, 0)))
        return Served(card, network, onnxruntime.InferenceSession(model.SerializeToString()))

    return make
