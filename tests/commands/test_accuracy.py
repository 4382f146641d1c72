"""AP is what the checkpoints' own libraries find on the same labelled photos: a third of those of the command."""

import pytest

from commands.originals.accuracy import compare_with_torchvision, compare_with_ultralytics
from commands.originals.labelled import thirty
from tests.conftest import needs


@pytest.mark.timeout(1200)  # exports and evaluates five networks
def test_ap_is_that_of_ultralytics_val(tmp_path):
    needs("ultralytics")
    rows = list(compare_with_ultralytics(tmp_path, thirty()[::3]))
    assert [row.measure for row in rows] == ["AP", "box AP", "mask AP", "box AP", "keypoint AP", "AP"]
    for row in rows:
        rotated = row.model == "yolo11n-obb"
        assert (row.images, row.objects > 20) == (5 if rotated else 10, True)
        assert row.served > 0.05
        assert row.served == pytest.approx(row.original, abs=2e-3), row
        assert "max_detections 300" in row.settings


def test_ap_is_that_of_torchvisions_own_detections(tmp_path):
    (row,) = compare_with_torchvision(tmp_path, thirty()[::3])
    assert (row.images, row.objects > 20, row.printed) == (10, True, None)
    assert row.served > 0.05
    assert row.served == pytest.approx(row.original, abs=2e-3), row
