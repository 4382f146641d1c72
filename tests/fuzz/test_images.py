"""What the fuzzing of images starts from are images."""

import pytest

from fuzz.images import seeds
from service.vision.decode import decode

SEEDS = dict(seeds())


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_decoded(name):
    assert decode(SEEDS[name]).shape in {(32, 48, 3), (48, 32, 3)}
