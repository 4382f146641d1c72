"""Prepared pixels and answers are those of the checkpoints' own libraries."""

import pytest

from commands.originals import answers, pixels, runtimes
from commands.originals.differences import compare_pixels
from commands.originals.ultralytics import compare_ultralytics
from tests.conftest import needs
from zoo.errors import ExportError


def check(rows, allowed=1.0):
    assert {row.mode for row in rows} == {"exact", "fast"}
    for row in rows:
        assert row.pixels <= (allowed if row.mode == "exact" else 2.0), row


@pytest.mark.parametrize(
    ("compare", "name"),
    [
        (answers.compare_torchvision, "mobilenet_v2"),
        (answers.compare_torchvision, "lraspp_mobilenet_v3_large"),
        (answers.compare_detector, "ssdlite320_mobilenet_v3_large"),
        (answers.compare_timm, "mobilenetv3_large_100.ra_in1k"),
        (answers.compare_libreyolo, "yolox"),
    ],
)
def test_torchvision_timm_and_libreyolo(compare, name, tmp_path):
    if compare in {answers.compare_timm, answers.compare_libreyolo}:
        library = "timm" if compare is answers.compare_timm else "libreyolo"
        needs(library)
    rows = compare(name, tmp_path)
    check(rows)
    exact = [row for row in rows if row.mode == "exact"][-1]  # a detector of torchvision's: with the same pixels
    if exact.mask is not None:
        assert exact.mask > 0.99
        return
    assert exact.score < 1e-3
    if exact.objects is not None:
        assert exact.objects > 20
        assert exact.missing <= exact.objects // 100  # where float noise takes a score over the threshold
        assert exact.box < 0.5


def test_pixels_of_all_that_libreyolo_has():
    needs("libreyolo")
    for model in answers.LIBREYOLO:
        original = pixels.libreyolo_original(model)
        check(compare_pixels(original.card, original.reference, original.prepare), allowed=0.01)


def test_u2net_is_that_of_rembg(tmp_path):
    exact, fast = runtimes.rows("rembg", tmp_path, None)
    assert (exact.pixels < 0.01, exact.mask > 0.998) == (True, True), exact
    assert (fast.pixels < 3, fast.mask > 0.99) == (True, True), fast  # two levels, divided by the brightest


def test_ultralytics(tmp_path):
    needs("ultralytics")
    rows = compare_ultralytics(["yolo11n_seg"], tmp_path)
    check(rows, allowed=0)
    for row in rows:
        assert (row.objects > 5, row.missing) == (True, 0)
        assert row.score < 1e-3
        assert row.box < 0.5
        assert row.mask > 0.99


def test_deeplab_answers_as_litert(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    exact, _ = runtimes.rows("tflite", tmp_path, None)
    assert (exact.pixels, exact.mask > 0.99) == (0, True)


@pytest.mark.parametrize("family", ["darknet", "caffe", "paddle"])
def test_a_runtime_that_is_not_there_is_named(family, tmp_path):
    with pytest.raises(ExportError, match="needs --packages FOLDER, of `pip install --target FOLDER"):
        runtimes.rows(family, tmp_path, None)
