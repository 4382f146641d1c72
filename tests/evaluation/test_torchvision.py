"""The served path gives what torchvision's own recipe gives: its transforms, its network, its checkpoint."""

import pytest
import torch
from PIL import Image
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from zoo import catalog
from zoo.catalog import fetch_photos
from zoo.sources import fetch_all

PHOTOS = ("chelsea", "coffee", "imagenet_00_243", "imagenet_13_471", "retina", "hubble_deep_field")


@pytest.fixture(scope="module")
def published():
    network = mobilenet_v2()
    weights = fetch_all(catalog.find("mobilenet_v2").sources)["weights"]
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    transforms = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()

    @torch.no_grad()
    def probabilities(path):
        return network(transforms(Image.open(path).convert("RGB"))[None])[0].softmax(0)

    return probabilities


@pytest.mark.parametrize("name", PHOTOS)
def test_exact_pixels_answer_as_torchvision_does(loaded, published, name):
    path = fetch_photos(progress=False)[name]
    model, predictor, _ = loaded("mobilenet_v2", "exact")
    found = predictor.predict(path.read_bytes(), model, {"top_k": 1000}).predictions
    expected = published(path)
    assert found[0].class_id == int(expected.argmax())
    assert max(abs(one.score - float(expected[one.class_id])) for one in found) < 1e-4
