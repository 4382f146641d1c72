"""Ultralytics' pickles: what they may name, and what becomes of the rest."""

import importlib
import importlib.util
import os
import pathlib

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from export.checkpoint import read_state_dict
from export.ultralytics.checkpoint import read_model
from export.ultralytics.library import import_library
from zoo import catalog
from zoo.errors import ExportError
from zoo.sources import fetch_all

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed"
)


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def library(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_library(module), attribute)


@pytest.mark.parametrize("reader", [read_model, read_state_dict])
def test_code_is_named_and_not_run(reader, tmp_path):
    torch.save({"model": nn.Linear(2, 2), "x": Calls(os.system, f"touch {tmp_path}/run")}, tmp_path / "net.pt")
    with pytest.raises(ExportError, match=r"net\.pt: .*it needs .*posix\.system"):
        reader(tmp_path / "net.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: Calls(nn.Conv2d, 3, 3, 1), r"it calls torch\.nn\.modules\.conv\.Conv2d"),
        (lambda: Calls(library("ultralytics.nn.tasks.DetectionModel"), {"nc": 1}), "it calls .*DetectionModel"),
        (lambda: Calls(library("ultralytics.nn.tasks.parse_model"), {}, 3), "no layer ultralytics.*parse_model"),
        (lambda: Calls(nn.modules.utils.consume_prefix_in_state_dict_if_present, {}, ""), "no layer .*consume_prefix"),
        (lambda: Calls(getattr, nn.Linear(2, 2), "load_state_dict"), "it needs 'load_state_dict' of a Linear"),
        (lambda: Calls(getattr, nn.Linear, "__init__"), "it needs '__init__' of a _Shell"),
        (lambda: Calls(eval, "1 + 1"), r"it needs builtins\.eval"),
        (lambda: Calls(library("ultralytics.utils.downloads.safe_download"), "x"), "it holds a _Placeholder"),
        (lambda: nn.Linear.__new__(library("ultralytics.nn.tasks.DetectionModel")), "object has no attribute"),
        (lambda: {"model": {"weight": torch.zeros(2)}}, "expected a network under `ema` or `model`, .* holds a dict"),
    ],
)
def test_tricks_with_allowed_names_are_refused(content, message, tmp_path):
    inner = content()
    torch.save(inner if isinstance(inner, dict) else {"model": inner}, tmp_path / "net.pt")
    with pytest.raises(ExportError, match=rf"net\.pt: .*{message}"):
        read_model(tmp_path / "net.pt")


def test_what_training_left_behind_becomes_a_placeholder(tmp_path):
    left = {
        "train_args": library("ultralytics.utils.IterableSimpleNamespace")(epochs=3),
        "best_fitness": np.float64(0.5),
        "path": pathlib.Path("runs"),
    }
    torch.save({"model": None, "ema": nn.Sequential(nn.Linear(2, 2)).half()} | left, tmp_path / "best.pt")
    model = read_model(tmp_path / "best.pt")
    assert model[0].weight.dtype == torch.float32
    assert not model.training


@pytest.mark.parametrize("by_name", [False, True])
def test_a_trained_classifier_has_its_transforms_with_it(by_name, tmp_path, monkeypatch):
    if by_name:  # as Python 3.11 did at first
        monkeypatch.setattr(InterpolationMode, "__reduce_ex__", lambda self, _: (getattr, (type(self), self.name)))
    network = nn.Sequential(nn.Linear(2, 2))
    network.transforms = library("ultralytics.data.augment.classify_transforms")(64)
    torch.save({"ema": network}, tmp_path / "best.pt")
    assert read_model(tmp_path / "best.pt")[0].weight.equal(network[0].weight)


@pytest.mark.parametrize(
    ("old", "new", "layer"),
    [
        ("ultralytics.nn.tasks", "YOLOv10DetectionModel", "ultralytics.nn.tasks.DetectionModel"),
        ("ultralytics.nn.modules.block", "Silence", "torch.nn.modules.linear.Identity"),
    ],
)
def test_published_files_have_layers_under_older_names(old, new, layer, tmp_path, monkeypatch):
    library(layer)
    older = type(new, (nn.Module,), {"__module__": old})
    monkeypatch.setattr(importlib.import_module(old), new, older, raising=False)
    network = older()
    network.model = nn.Sequential(nn.Linear(2, 2))
    torch.save({"model": network}, tmp_path / "net.pt")
    monkeypatch.undo()
    found = type(read_model(tmp_path / "net.pt"))
    assert f"{found.__module__}.{found.__name__}" == layer


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(ExportError, match=r"net\.pt: not a checkpoint that ultralytics [\d.]+ can read"):
        read_model(tmp_path / "net.pt")


def test_other_families_say_who_reads_such_files():
    path = fetch_all(catalog.find("yolov8n").sources, progress=False)["weights"]
    message = r"it needs torch\.nn\.modules.*, ultralytics\.nn\..* the family `ultralytics` reads such files"
    with pytest.raises(ExportError, match=message):
        read_state_dict(path)
