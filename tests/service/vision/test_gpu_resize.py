"""Images are resized by a graph as the service's fast mode resizes them, and the answers stay the same."""

import io
from itertools import product
from time import thread_time

import numpy as np
import pytest
from PIL import Image

from loadtests.gpu.engine import Model, Session
from service.vision import gpu_resize
from service.vision.decode import EncodedImage
from service.vision.gpu_resize import Resizer, UnsupportedError
from service.vision.resize import fit
from tests.service.vision.resize_graphs import FOLDER, graphs
from zoo.card import Recipe


def test_the_files_are_the_graphs_that_are_described():
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == graphs()


NAMES = ("mobilenet_v2", "efficientnet_lite0", "yolov4_tiny", "deeplabv3_mobilenet_v2", "u2netp", "lenet5")


def resized(recipe: Recipe, image: np.ndarray) -> np.ndarray:
    out = np.zeros((recipe.height, recipe.width, 3), np.uint8)
    pixels = np.ascontiguousarray(image)
    Resizer(recipe, "cpu", ["CPUExecutionProvider"]).resize(pixels.ctypes.data, *pixels.shape[:2], out.ctypes.data)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_of_the_fast_mode(models, name):
    model = Model(models, name)
    for path in model.golden:
        encoded = EncodedImage(path.read_bytes(), 10**9)
        expected, _ = fit(encoded, model.card.recipe, exact=False)
        apart_by = np.abs(resized(model.card.recipe, np.asarray(encoded.image())).astype(int) - expected)
        assert apart_by.max() <= 2
        assert apart_by.mean() < 0.05


SIZES = ((97, 31), (31, 97), (8, 8), (32, 32))  # heights and widths
PILLOW = [
    Recipe(
        height=32,
        width=40,
        resize=resize,
        short_side=48 if resize == "crop" else None,
        interpolation=interpolation,
        pad=(114, 0, 255),
    )
    for resize, interpolation in product(
        ("crop", "letterbox", "letterbox_top_left", "stretch"), ("bilinear", "bicubic", "lanczos")
    )
]
OTHERS = [
    Recipe(height=32, width=40, resize="letterbox", resampling=resampling)
    for resampling in ("opencv", "torch", "darknet")
]


@pytest.mark.parametrize(
    "recipe", PILLOW + OTHERS, ids=lambda one: f"{one.resampling} {one.resize} {one.interpolation}"
)
def test_every_kind_of_recipe(recipe):
    for size in SIZES:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        expected, _ = fit(EncodedImage(data.getvalue(), 10**6), recipe, exact=False)
        assert np.abs(resized(recipe, image).astype(int) - expected).max() <= 2, size


@pytest.mark.parametrize("recipe", PILLOW[:3] + OTHERS, ids=lambda one: f"{one.resampling} {one.interpolation}")
def test_weights_are_the_kernel_at_every_pixel(recipe):
    """Where nearly all are 0 they are not computed: an image of a new size waits for them."""
    kernel, _ = gpu_resize._KERNELS[recipe.interpolation]
    for side, scaled, offset, target in product((1, 2, 97, 640), (1, 5, 48, 300), (-9, 0, 4), (8, 40)):
        at = np.arange(target) - offset
        centres = (at + 0.5) * (side / scaled)
        if recipe.resampling == "darknet":
            centres = at * ((side - 1) / max(1, scaled - 1)) + 0.5
        width = max(1.0, side / scaled) if recipe.resampling == "pillow" else 1.0
        values = kernel(np.abs(np.arange(side) + 0.5 - centres[:, None]) / width)
        values[(at < 0) | (at >= scaled)] = 0
        expected = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-300)
        found = gpu_resize.weights(recipe, side, scaled, offset, target)
        np.testing.assert_allclose(found, np.where(values.any(axis=1, keepdims=True), expected, 0), atol=1e-6)


def test_weights_of_a_large_image_take_no_longer_than_decoding_it():
    recipe, spent = Recipe(height=640, width=640, resize="letterbox"), []
    for _ in range(5):
        begun = thread_time()
        gpu_resize.weights(recipe, 4096, 640, 0, 640)
        spent.append(thread_time() - begun)
    assert min(spent) < 0.006, "it was 20 ms where each pixel's weight was computed"


def test_scores_stay(models):
    model = Model(models, "mobilenet_v2")
    run = Session(model.path, "cpu").run
    encoded = [EncodedImage(path.read_bytes(), 10**9) for path in model.golden]
    fast = np.stack([fit(image, model.card.recipe, exact=False)[0] for image in encoded])
    ours = np.stack([resized(model.card.recipe, np.asarray(image.image())) for image in encoded])
    assert np.abs(run({"images": fast})["probabilities"] - run({"images": ours})["probabilities"]).max() < 0.01


def test_a_kernel_that_is_not_known_is_refused():
    recipe = Recipe(height=8, width=8, resize="stretch", interpolation="bicubic", resampling="opencv")
    with pytest.raises(UnsupportedError, match="opencv bicubic"):
        Resizer(recipe, "cpu", ["CPUExecutionProvider"])
