"""Prepared pixels and answers are those of the checkpoints' own libraries."""

import pytest

from commands.originals import pixels
from commands.originals.differences import compare_pixels
from commands.originals.ultralytics import compare_ultralytics


def check(rows, allowed=1.0):
    assert {row.mode for row in rows} == {"exact", "fast"}
    for row in rows:
        assert row.pixels <= (allowed if row.mode == "exact" else 2.0), row


@pytest.mark.parametrize("name", pixels.TORCHVISION_DETECTORS)
def test_torchvisions_detectors(name):
    check(compare_pixels(*pixels.torchvision_pixels(name)))


def test_torchvisions_classifiers():
    check(compare_pixels(*pixels.torchvision_pixels("mobilenet_v2")))


def test_libreyolo():
    pytest.importorskip("libreyolo", reason="needs the extra `libreyolo`")
    compared = [compare_pixels(*one) for one in pixels.libreyolo_pixels()]
    assert len(compared) == 9
    for rows in compared:
        check(rows, allowed=0.01)


def test_ultralytics(tmp_path):
    pytest.importorskip("ultralytics", reason="needs the extra `ultralytics`")
    rows = compare_ultralytics(["yolo11n_seg"], tmp_path)
    check(rows, allowed=0)
    for row in rows:
        assert (row.objects > 5, row.missing) == (True, 0)
        assert row.score < 1e-3
        assert row.box < 0.5
        assert row.mask > 0.99
