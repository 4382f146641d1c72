"""The self-test of a loaded model, on the golden photos of a real folder."""

import msgspec
import numpy as np
import pytest

from service.models.selftest import SelfTestError, self_test
from service.settings import Settings
from zoo.store import Store


@pytest.mark.parametrize(
    ("score", "behind", "ahead", "passes"),
    [
        (0.4, 0.005, -0.1, True),
        (0.4, 0.005, 1e-6, True),
        (0.4, 0.005, 0.009, True),
        (0.4, 0.005, 0.02, False),
        (0.4, 0.3, 0.005, False),  # the other class was not as probable
        (0.04, None, 0.005, False),  # it is not in the golden answer
    ],
)
def test_classes_that_are_equally_probable_may_change_places(models, score, behind, ahead, passes):
    """Another class, `behind` the first in the golden answer, is as far ahead of it as `ahead` says."""
    card = Store(models).latest("lenet5").card
    other = card.golden[0].predictions[0].class_id - 1
    first = msgspec.structs.replace(card.golden[0].predictions[0], score=score)
    second = [] if behind is None else [msgspec.structs.replace(first, class_id=other, score=score - behind)]
    golden = msgspec.structs.replace(card.golden[0], predictions=(first, *second))
    card = msgspec.structs.replace(card, golden=(golden,))
    folder = Store(models).latest("lenet5").path / "golden"
    files = {golden.photo: (folder / golden.photo).read_bytes() for golden in card.golden}

    def run(_):
        probabilities = np.zeros((1, len(card.labels)), np.float32)
        probabilities[0, first.class_id] = score
        probabilities[0, other] = score + ahead
        return {"probabilities": probabilities}

    if passes:
        self_test(card, files, run, Settings())
        return
    with pytest.raises(SelfTestError, match=r"it should find .* Export the model again"):
        self_test(card, files, run, Settings())
