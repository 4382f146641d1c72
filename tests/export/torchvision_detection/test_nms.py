"""Suppression by matrices against torchvision's, which goes through the boxes one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision.ops import nms

from export.torchvision_detection.nms import suppress
from export.torchvision_detection.two_stage import ROUNDS

COORDINATE = st.floats(0, 64, width=32)


def boxes_of(corners: np.ndarray) -> torch.Tensor:
    """Any two corners each, [K, 4] -> xyxy."""
    pairs = np.sort(corners.reshape(-1, 2, 2), axis=1)
    return torch.from_numpy(pairs.reshape(-1, 4))


def greedy(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """The same by `torchvision.ops.nms`."""
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    places = valid.nonzero()[:, 0]
    ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    kept[places[nms(boxes[places], ranks[places], threshold)]] = True
    return kept


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 24), st.just(4)), elements=COORDINATE),
    st.sampled_from([0.1, 0.3, 0.5, 0.7]),
    st.randoms(use_true_random=False),
)
def test_as_many_rounds_as_boxes_are_exact(corners, threshold, random):
    boxes = boxes_of(corners)
    valid = torch.tensor([random.random() < 0.8 for _ in boxes])
    expected = greedy(boxes, valid, threshold)
    assert torch.equal(suppress(boxes, valid, threshold, len(boxes) + len(boxes) % 2), expected)


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 24), st.just(4)), elements=COORDINATE),
    st.sampled_from([2, 4, 6]),
)
def test_even_rounds_lose_no_box(corners, rounds):
    boxes = boxes_of(corners)
    valid = torch.ones(len(boxes), dtype=torch.bool)
    kept = suppress(boxes, valid, 0.3, rounds)
    assert (kept | ~greedy(boxes, valid, 0.3)).all()


def test_a_long_chain():
    """Each box overlaps its neighbours only: every second one stays, and a round settles one more."""
    x = torch.arange(40.0)
    boxes = torch.stack([x, torch.zeros(40), x + 4, torch.full((40,), 4.0)], dim=1)
    valid = torch.ones(40, dtype=torch.bool)
    expected = greedy(boxes, valid, 0.5)
    assert expected.tolist() == [True, False] * 20
    assert torch.equal(suppress(boxes, valid, 0.5, 40), expected)
    assert suppress(boxes, valid, 0.5, 20).sum() > 20


@pytest.mark.parametrize("side", [32, 64, 128, 256])
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_proposals_settle_in_the_rounds_that_a_graph_has(side, noise):
    """The 1,000 best of a dense grid of anchors, with deltas of some noise, around an object in the middle."""
    torch.manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(0, 800, side / 8)] * 2).repeat_interleave(3, 0)
    shapes = torch.tensor([[1.4, 0.7], [1.0, 1.0], [0.7, 1.4]]).repeat(len(grid) // 3, 1) * side
    centres = grid + torch.randn_like(grid) * side * noise / 3
    sizes = shapes * (torch.randn_like(shapes) * noise).exp()
    scores = torch.exp(-((centres - 400) / 200).square().sum(1)) + 0.1 * torch.rand(len(grid))
    best = scores.topk(min(1000, len(grid))).indices
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1).clamp(0, 800)[best]
    valid = torch.ones(len(best), dtype=torch.bool)
    expected = greedy(boxes, valid, 0.7)
    assert expected.sum() < len(best) - 50
    assert torch.equal(suppress(boxes, valid, 0.7, ROUNDS), expected)


def test_batches_and_levels_are_apart():
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8]]).expand(3, 2, 2, 4)
    valid = torch.ones(3, 2, 2, dtype=torch.bool)
    assert suppress(boxes, valid, 0.7, 2).tolist() == [[[True, False]] * 2] * 3
