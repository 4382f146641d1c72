"""The self-test of a loaded model, on the golden photos of a real folder."""

import numpy as np
import pytest

from service.models.selftest import SelfTestError, self_test
from service.settings import Settings
from zoo.store import Store


@pytest.mark.parametrize(
    ("ahead", "passes"),
    [(-0.1, True), (1e-6, True), (0.009, True), (0.02, False)],
)
def test_classes_that_are_equally_probable_may_change_places(models, ahead, passes):
    """Another class is as far ahead of the golden one as `ahead` says."""
    card = Store(models).latest("lenet5").card
    folder = Store(models).latest("lenet5").path / "golden"
    files = {golden.photo: (folder / golden.photo).read_bytes() for golden in card.golden}
    answers = iter(golden.predictions[0] for golden in card.golden)

    def run(_):
        golden = next(answers)
        probabilities = np.zeros((1, len(card.labels)), np.float32)
        probabilities[0, golden.class_id] = golden.score
        probabilities[0, golden.class_id - 1] = golden.score + ahead
        return {"probabilities": probabilities}

    if passes:
        self_test(card, files, run, Settings())
        return
    with pytest.raises(SelfTestError, match=r"it should find .* Export the model again"):
        self_test(card, files, run, Settings())
