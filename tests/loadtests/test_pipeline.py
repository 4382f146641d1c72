"""`python -m loadtests.pipeline`: it measures, judges and reports."""

import json

import pytest
from click.testing import CliRunner

from loadtests.pipeline import CROPS, Bare, main, photo
from tests.conftest import ROOT

MODELS = ROOT / "models"


def test_the_photo_has_more_objects_than_crops():
    found = Bare(MODELS / "yolov4_tiny/1", MODELS / "mobilenet_v2/1").answer(photo())
    assert len(found) > CROPS
    assert sum("second" in each for each in found) == CROPS
    assert found[0]["second"]["predictions"][0]["label"] == "espresso"


def test_a_folder_that_is_no_version_is_named():
    done = CliRunner().invoke(main, ["--detector", str(MODELS / "yolov4_tiny")])
    assert done.exit_code == 2
    assert "holds no card.json: give the folder of a version, as models/NAME/1" in " ".join(done.output.split())


def test_it_judges_both_loads_and_writes_a_report(tmp_path):
    out = tmp_path / "pipeline.json"
    arguments = ["--detector", str(MODELS / "yolov4_tiny/1"), "--second", str(MODELS / "mobilenet_v2/1")]
    done = CliRunner().invoke(main, [*arguments, "--seconds", "0.5", "--rounds", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    for who in ("1 client", "8 clients"):
        assert f"goal {who}: time over the bare loop's <= 1.15: " in done.output
    report = json.loads(out.read_text())
    assert [each["clients"] for each in report["measurements"]] == [1, 8]
    assert report["target"]["model"] == "yolov4_tiny, mobilenet_v2"
    assert [each["name"] for each in report["measurements"]] == ["1 client", "8 clients"]
    assert all(each["p50_ms"] <= each["p99_ms"] for each in report["measurements"])
    assert all(each["errors"] == 0 and each["requests"] > 0 for each in report["measurements"])
    assert report["details"][0]["ratio"] == [pytest.approx(report["details"][0]["ratio"][0])]
