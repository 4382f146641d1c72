"""How the GPU script compares answers."""

import numpy as np
import pytest

from loadtests.gpu.engine import Model, difference, scores_apart


@pytest.mark.parametrize(
    ("given", "apart"),
    [([[0.5, 0.25]], 0.0), ([[0.5, 0.3]], 0.05), ([[np.nan, 0.25]], np.nan)],
)
def test_scores_are_compared(given, apart):
    scores, other = np.array([[0.5, 0.25]], np.float32), np.array(given, np.float32)
    assert scores_apart({"scores": scores}, {"scores": other}) == pytest.approx(apart, nan_ok=True)


def test_masks_are_compared_by_pixels_and_boxes_not_at_all():
    mask = np.zeros((1, 10, 10), np.uint8)
    changed = mask.copy()
    changed[0, 0, :5] = 1
    boxes = np.zeros((1, 3, 4), np.float32)
    said = difference({"mask": mask, "boxes": boxes}, {"mask": changed, "boxes": boxes + 1})
    assert said == "answers differ: scores by up to 0.0000, mask in 5.00% of the pixels"


def test_images_are_the_golden_photos_over_and_over(models):
    model = Model(models, "mobilenet_v2")
    images = model.images(5)
    assert (images.shape, images.dtype) == ((5, 224, 224, 3), np.uint8)
    assert (images[0] == images[len(model.golden)]).all()
    assert images.flags.c_contiguous
