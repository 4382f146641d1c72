"""The best pairs against a full ranking."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.torchvision_detection.pairs import best_pairs, rows_of

SCORES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 5)),
    elements=st.floats(-9, 9, width=32),
    unique=True,
)


@given(SCORES, st.integers(1, 70))
def test_as_a_full_ranking(values, limit):
    scores = torch.from_numpy(values)
    best, boxes, classes = best_pairs(scores, limit)
    expected = scores.flatten(1).sort(dim=1, descending=True).values[:, :limit]
    assert torch.equal(best, expected)
    assert torch.equal(rows_of(scores, boxes).gather(2, classes[..., None])[..., 0], expected)
