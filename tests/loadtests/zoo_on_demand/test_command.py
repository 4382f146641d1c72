"""A small zoo that is larger than its budget: nothing wrong, nothing lost, and figures of the schema."""

import json

import pytest
from click.testing import CliRunner

from loadtests.compare.process import ServerError
from loadtests.report import read_json
from loadtests.zoo_on_demand.__main__ import main
from loadtests.zoo_on_demand.measure import _disturbed
from loadtests.zoo_on_demand.store import make_store


def test_copies_have_names_of_their_own_and_the_first_is_pinned(models, tmp_path):
    made = make_store([models / "lenet5" / "1", models / "mobilenet_v2" / "1"], 4, tmp_path)
    assert made == {"pinned": "lenet5", "model-00": "mobilenet_v2", "model-01": "lenet5", "model-02": "mobilenet_v2"}
    for name in made:
        card = json.loads((tmp_path / name / "1" / "card.json").read_bytes())
        assert (card["name"], card["task_default"]) == (name, False)
        assert (tmp_path / name / "1" / "model.onnx").stat().st_size == card["size"]


def test_refusals_of_the_pinned_model_are_no_latencies():
    class Refusing:
        async def clients(self, count, seconds, name, seen):
            seen(name(), 503, b"not ready", 0.001)

    with pytest.raises(ServerError, match="pinned answers 503"):
        _disturbed(Refusing(), ["pinned", "a"], ["pinned", "a"], 0.1)


def test_a_short_run(models, tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--models", "4", "--fit", "2", "--seconds", "1", "--clients", "2", "--json", str(out)]
    result = CliRunner().invoke(main, [*arguments, "--original", str(models / "mobilenet_v2" / "1")])
    assert result.exit_code == 0, result.output
    details = read_json(out).details
    assert (details["models"], details["wrong"], details["failed"]) == (4, 0, 0)
    assert details["requests"] > 0
    assert details["loads_while_fitting"] <= details["expected_loads"]
