"""`zooserve add --task tensors`: what is shown, written and refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, save

from zoo.cli import main
from zoo.model_card import read_model_card
from zoo.store import Store


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command in a folder with a graph that doubles [N, T]."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOOSERVE_CARDS", raising=False)
    monkeypatch.setenv("ZOOSERVE_MODELS", str(tmp_path / "models"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "T"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "net", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "rows.npz", x=np.ones((3, 7), np.float32))
    arguments = ["net.onnx", "--task", "tensors"]
    return lambda *more: CliRunner().invoke(main, ["add", *arguments, *more])


def test_a_card_and_a_folder_are_written(run, tmp_path):
    result = run("--license", "MIT", "--yes")
    assert result.exit_code == 0, result.output
    assert "/v2/models/net/infer" in result.stdout
    assert "float32 [N, ?]" in result.output
    assert read_model_card(tmp_path / "cards/net.toml").task == "tensors"
    assert Store(tmp_path / "models").verify("net", "1").outputs[0].name == "y"
    for command in (["list"], ["show", "net"], ["verify"], ["export", "net"]):
        told = CliRunner().invoke(main, command)
        assert told.exit_code == 0, told.output
        assert "net" in told.stdout


def test_real_rows_are_taken(run, tmp_path):
    result = run("--license", "MIT", "--json", "--sample", "rows.npz")
    assert result.exit_code == 0, result.output
    added = json.loads(result.stdout)
    assert (added["name"], added["answer"], added["picture"]) == ("net", None, "")
    card = Store(tmp_path / "models").verify("net", "1")
    assert card.golden.sample
    assert set(card.provenance.sha256) == {"weights", "sample"}


def test_a_licence_must_be_said(run):
    result = run("--yes")
    assert result.exit_code == 1
    assert "under which licence are its weights?" in result.output


def test_tasks_for_images_do_not_accept_it(run, tmp_path):
    assert run("--license", "MIT", "--json").exit_code == 0
    (tmp_path / "a.jpg").write_bytes(b"")
    told = CliRunner().invoke(main, ["predict", "net", "a.jpg"])
    assert told.exit_code != 0
    assert "net takes tensors, not images" in told.output + str(told.exception)
