"""`zooserve add` takes what `torch.onnx.export` writes: a graph, and its weights in a file beside it."""

import json

import onnx
import pytest
import torch
from click.testing import CliRunner

from zoo.cli import main
from zoo.store import Store


@pytest.fixture
def exported(tmp_path):
    """A small classifier of four classes, weights beside it, as torch writes it by itself."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    network.append(torch.nn.Linear(8, 4))
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, 32, 32),),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert (tmp_path / "net.onnx.data").exists(), "torch writes one file again: this test says nothing"
    return path


@pytest.mark.parametrize("task", ["classify", "tensors"])
def test_weights_beside_a_graph_are_joined_into_what_is_published(run, names, exported, task):
    wished = ["--labels", names(4)] if task == "classify" else ["--task", "tensors"]
    done = run(exported, "--license", "MIT", "--json", *wished)
    assert done.exit_code == 0, done.output
    facts = {fact[0]: fact[1] for fact in json.loads(done.stdout)["facts"]}
    assert facts["weights"] == "in net.onnx.data; joined into one file"
    card = Store(exported.parent / "models").verify("net", "1")
    assert set(card.provenance.sha256) == {"weights", "data"}
    published = onnx.load(exported.parent / "models/net/1/model.onnx", load_external_data=False)
    assert published.graph.initializer
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in published.graph.initializer)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is not the file that the card names"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_a_card_holds_for_the_weights_that_it_was_written_for(run, names, exported, change, says):
    assert run(exported, "--license", "MIT", "--json", "--labels", names(4)).exit_code == 0
    change(exported.with_name("net.onnx.data"))
    again = CliRunner().invoke(main, ["export", "cards/net.toml", "--force"])
    assert again.exit_code == 1
    assert says in again.output
    assert "net.onnx.data" in again.output


def test_a_network_that_sees_nothing_is_called_undecided(run, names, exported):
    """Its last layer answers the same to everything."""
    model = onnx.load(exported)
    for weights in model.graph.initializer:
        if list(weights.dims) == [4, 8]:
            weights.raw_data = bytes(4 * 4 * 8)
    onnx.save(model, exported)
    done = run(exported, "--license", "MIT", "--json", "--labels", names(4))
    added = json.loads(done.stdout)
    (pixels,) = [fact for fact in added["facts"] if fact[0] == "pixels"]
    assert max(added["tried"].values()) < 0.05
    assert pixels[1] == "ImageNet's mean and deviation"
    assert pixels[2].startswith("undecided: the network recognised nothing")
    assert "--mean and --std" in pixels[2]
