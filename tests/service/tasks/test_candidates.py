"""Candidates: their boxes are mapped back to pixels of the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks.candidates import to_image_pixels
from zoo.card import Recipe
from zoo.recipe import placement


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    resize=st.sampled_from(["letterbox", "stretch"]),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_is_mapped_back_to_its_position(width, height, resize, share):
    where = placement(Recipe(416, 416, resize), width, height)
    box = np.array([min(share[0], share[1]) * width, min(share[2], share[3]) * height] * 2)
    box[2], box[3] = max(share[0], share[1]) * width, max(share[2], share[3]) * height
    inside = box * np.tile([where.scale_x, where.scale_y], 2)
    inside = inside + np.tile([where.offset_x, where.offset_y], 2)
    back = to_image_pixels(inside[None].astype(np.float64), where)[0]
    assert back == pytest.approx(box, abs=1e-6 * max(width, height))
