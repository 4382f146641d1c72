"""Prepared pixels and answers are those of the checkpoints' own libraries."""

import pytest

from commands.originals import pixels, runtimes
from commands.originals.accuracy import compare_accuracy
from commands.originals.differences import compare_pixels
from commands.originals.ultralytics import compare_ultralytics
from zoo.errors import ExportError


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


def test_ap_is_that_of_ultralytics_val(tmp_path):
    pytest.importorskip("ultralytics", reason="needs the extra `ultralytics`")
    rows = list(compare_accuracy(tmp_path))
    assert [row.measure for row in rows] == ["AP", "box AP", "mask AP", "box AP", "keypoint AP", "AP"]
    for row in rows:
        rotated = row.model == "yolo11n-obb"
        assert (row.images, row.objects > (20 if rotated else 50)) == (5 if rotated else 30, True)
        assert row.served > 0.05
        assert row.served == pytest.approx(row.original, abs=2e-3), row
        assert "max_detections 300" in row.settings


def test_deeplab_answers_as_litert(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    exact, _ = runtimes.rows("tflite", tmp_path, None)
    assert (exact.pixels, exact.mask > 0.99) == (0, True)


@pytest.mark.parametrize("family", ["darknet", "caffe", "paddle"])
def test_a_runtime_that_is_not_there_is_named(family, tmp_path):
    with pytest.raises(ExportError, match="needs --packages FOLDER, of `pip install --target FOLDER"):
        runtimes.rows(family, tmp_path, None)
