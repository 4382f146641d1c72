"""Reading checkpoints: no code is run, and nothing but the right tensors is taken."""

import pytest
import torch
from torch import nn

from export.checkpoint import load, read_state_dict
from zoo.errors import ExportError


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {}}, "param_groups": []}, "epoch": 3},
        lambda s: prefixed(s, "module."),  # of DataParallel
        lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},  # compiled in it
        lambda s: prefixed(s, "_orig_mod.module."),  # compiled around it
        lambda s: {"net": s, "scaler": {}},  # of GradScaler that is off
    ],
)
def test_a_state_dict_and_what_training_makes_of_it(wrap, tmp_path):
    saved, loaded = network(), network()
    torch.save(wrap(saved.state_dict()), tmp_path / "net.pth")
    load(loaded, read_state_dict(tmp_path / "net.pth"), tmp_path / "net.pth", "net")
    assert torch.equal(saved[0].weight, loaded[0].weight)
    assert not loaded.training


def test_safetensors_of_a_compiled_network(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    saved, loaded = network(), network()
    safetensors.save_file(prefixed(saved.state_dict(), "_orig_mod."), tmp_path / "net.safetensors")
    load(loaded, read_state_dict(tmp_path / "net.safetensors"), tmp_path / "net.safetensors", "net")
    assert torch.equal(saved[0].weight, loaded[0].weight)


def test_checkpoints_from_before_batches_were_counted(tmp_path):
    state = {key: value for key, value in network().state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "net.pth")
    load(network(), read_state_dict(tmp_path / "net.pth"), tmp_path / "net.pth", "net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (network(), "torch cannot read it without running code of its own"),
        ([1, 2], "expected a state dict, names to tensors, but it holds a list"),
        ({"epoch": 3}, "expected a state dict, names to tensors, but it holds 'epoch': save"),
        ({"net": network().state_dict(), "ema": network().state_dict()},
         r"holds the state dicts 'net', 'ema': save .*, map_location='cpu'\)\['net'\], 'weights\.pth'"),
    ],
)  # fmt: skip
def test_other_contents_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ExportError, match=f"net.pth: {message}"):
        read_state_dict(tmp_path / "net.pth")


def test_the_command_that_saves_one_of_several_state_dicts(tmp_path, monkeypatch):
    state = network().state_dict()
    torch.save({"model": {"net": state, "ema": network().state_dict()}}, tmp_path / "net.pth")
    with pytest.raises(ExportError) as error:
        read_state_dict(tmp_path / "net.pth")
    code = str(error.value).partition('python -c "')[2].partition('"`')[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert torch.equal(read_state_dict(tmp_path / "weights.pth")["0.weight"], state["0.weight"])


def test_what_another_library_allows_the_process_is_not_allowed_here(tmp_path):
    torch.save(network(), tmp_path / "net.pth")
    classes = [nn.Sequential, nn.Conv2d, nn.BatchNorm2d, set]
    with torch.serialization.safe_globals(classes):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(ExportError, match=r"it needs .*torch\.nn\.modules\.container\.Sequential"):
            read_state_dict(tmp_path / "net.pth")
        assert set(torch.serialization.get_safe_globals()) == before
        assert isinstance(torch.load(tmp_path / "net.pth", weights_only=True), nn.Sequential)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "net.pth").write_text("<html>not found</html>")
    with pytest.raises(ExportError, match=r"torch cannot read it.*It is a web page: download the file itself"):
        read_state_dict(tmp_path / "net.pth")
    torch.jit.trace(network(), torch.zeros(1, 3, 8, 8)).save(tmp_path / "net.pt")
    said = r"It is TorchScript.*torch\.jit\.load\(.*net\.pt', map_location='cpu'\).*--architecture"
    with pytest.raises(ExportError, match=said):
        read_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r'Missing key.*"0.weight"'),
        (network().state_dict() | {"head.weight": torch.zeros(1)}, r'Unexpected key.*"head.weight"'),
        (network(4).state_dict(), "size mismatch for 0.weight"),
    ],
)
def test_what_does_not_fit_is_named(state, message, tmp_path):
    with pytest.raises(ExportError, match=f"a.pth is no checkpoint of net.*{message}"):
        load(network(), state, tmp_path / "a.pth", "net")
