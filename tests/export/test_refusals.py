"""What is wrong is refused with one sentence, through the command line as users type it; nothing is published."""

import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from zoo import catalog
from zoo.cli import main
from zoo.sources import fetch_all

CARD = """
name = "mine"
version = "1"
task = "{task}"
family = "{family}"
title = "Mine"
labels = "{labels}"
licence = {{ code = "BSD-3-Clause", weights = "{licence}" }}
options = {{ {options} }}
[recipe]
resize = "stretch"
height = {side}
width = {side}
"""


class Owner:
    """Somebody with a folder, a card and an empty store, who gets something wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def source(self, name: str, path: Path, digest: str = "") -> str:
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
        return f'[sources.{name}]\nfile = "{path}"\nsha256 = "{digest}"\n'

    def card(self, *sources: str, **fields: object) -> Path:
        usual = {"task": "classify", "family": "torchvision", "labels": "imagenet1k", "licence": "BSD-3-Clause"}
        usual |= {"options": 'architecture = "mobilenet_v2"', "side": 224}
        return self.write("mine.toml", CARD.format(**usual | fields) + "".join(sources))

    def mobilenet(self) -> str:
        return self.source("weights", fetch_all(catalog.find("mobilenet_v2").sources)["weights"])

    def export(self, *sources: str, **fields: object) -> list[object]:
        return ["export", self.card(*sources, **fields)]


def another_architecture(owner: Owner) -> list[object]:
    return owner.export(owner.mobilenet(), options='architecture = "resnet18"')


def cfg_of_other_weights(owner: Owner) -> list[object]:
    files = fetch_all(catalog.find("yolov4_tiny").sources)
    cfg = owner.write("my.cfg", files["cfg"].read_text().replace("filters=64", "filters=72", 1))
    sources = owner.source("cfg", cfg), owner.source("weights", files["weights"])
    return owner.export(*sources, task="detect", family="darknet", labels="coco80", options="", side=416)


def labels_of_another_length(owner: Owner) -> list[object]:
    owner.write("names.txt", "cat\ndog\n")
    return owner.export(owner.mobilenet(), labels="names.txt")


def licence_not_accepted(owner: Owner) -> list[object]:
    return owner.export(owner.mobilenet(), licence="AGPL-3.0-only")


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def pickle_with_code(owner: Owner) -> list[object]:
    return owner.export(owner.source("weights", owner.write("net.pth", pickle.dumps(_Code()))))


def torch_pickle_with_code(owner: Owner) -> list[object]:
    torch.save({"state_dict": _Code()}, owner.folder / "net.pth")
    return owner.export(owner.source("weights", owner.folder / "net.pth"))


def nothing_in_the_file(owner: Owner) -> list[object]:
    return owner.export(owner.source("weights", owner.write("net.pth", b"")))


def folder_for_a_file(owner: Owner) -> list[object]:
    (owner.folder / "net.pth").mkdir()
    return owner.export(owner.source("weights", owner.folder / "net.pth", "0" * 64))


def another_file(owner: Owner) -> list[object]:
    return owner.export(owner.source("weights", owner.write("net.pth", b"something else"), "0" * 64))


def card_with_a_typo(owner: Owner) -> list[object]:
    return ["export", owner.write("mine.toml", owner.card(owner.mobilenet()).read_text().replace("title", "titel"))]


def card_that_is_no_toml(owner: Owner) -> list[object]:
    return ["export", owner.write("mine.toml", owner.card(owner.mobilenet()).read_text().replace('"1"', '"1'))]


def folder_for_a_card(owner: Owner) -> list[object]:
    (owner.folder / "mine.toml").mkdir()
    return ["export", owner.folder / "mine.toml"]


def no_card(owner: Owner) -> list[object]:
    return ["export", owner.folder / "mine.toml"]


def no_network(owner: Owner) -> list[object]:
    url = "http://127.0.0.1:9/net.pth"
    return owner.export(f'[sources.weights]\nurl = "{url}"\nsha256 = "{"0" * 64}"\n')


def graph(owner: Owner, shape: list[int | str], opset: int = 20) -> Path:
    """Softmax over the mean of an image's pixels: a classifier of three classes."""
    rank = len(shape)
    batch = shape[:1] if rank == 4 else []
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [rank - 2, rank - 1])
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*batch, 3])],
        [axes],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, owner.folder / "mine.onnx")
    owner.write("names.txt", "a\nb\nc\n")
    return owner.folder / "mine.onnx"


def add(path: Path, *more: object) -> list[object]:
    return ["add", path, "--labels", path.with_name("names.txt"), "--license", "MIT", "--name", "mine", "--yes", *more]


def onnx_without_a_batch(owner: Owner) -> list[object]:
    return add(graph(owner, [3, 32, 32]))


def onnx_of_tomorrow(owner: Owner) -> list[object]:
    return add(graph(owner, ["n", 3, 32, 32], opset=99))


def onnx_that_is_empty(owner: Owner) -> list[object]:
    owner.write("names.txt", "a\nb\nc\n")
    return add(owner.write("mine.onnx", b""))


def onnx_that_is_a_folder(owner: Owner) -> list[object]:
    (owner.folder / "mine.onnx").mkdir()
    return add(owner.folder / "mine.onnx")


def onnx_with_other_labels(owner: Owner) -> list[object]:
    path = graph(owner, ["n", 3, 32, 32])
    owner.write("names.txt", "a\nb\n")
    return add(path)


CASES = {
    another_architecture: r"mobilenet_v2-b0353104\.pth is no checkpoint of resnet18\. Missing key\(s\) in state_dict: ",
    cfg_of_other_weights: r"tiny\.weights: \[convolutional\] at line \d+ .*; the file .* belongs to another cfg$",
    labels_of_another_length: r"size mismatch for classifier\.1\.weight: .* class for each of the card's labels: has",
    licence_not_accepted: r"its weights under AGPL-3\.0-only\. Read what .* with --accept-license AGPL-3\.0-only$",
    pickle_with_code: r"net\.pth: .* it needs posix\.system\. Save the network's `state_dict\(\)` instead$",
    torch_pickle_with_code: r"net\.pth: .* it needs posix\.system\. Save the network's `state_dict\(\)` instead$",
    nothing_in_the_file: r"net\.pth is empty: copy it, or export it, again$",
    folder_for_a_file: r"there is no file .*net\.pth: correct `file` in the card, or put the file there$",
    another_file: r"net\.pth is not the file that the card names: its sha256 is f41f.*, expected 0{64}\. If ",
    card_with_a_typo: r"mine\.toml: Object contains unknown field `titel`; is `title` meant\?$",
    card_that_is_no_toml: r"mine\.toml: Illegal character .* \(at line 3, column 13\)$",
    folder_for_a_card: r"mine\.toml cannot be read: Is a directory$",
    no_card: r"mine\.toml cannot be read: No such file or directory$",
    no_network: r"cannot fetch http://127\.0\.0\.1:9/net\.pth: Connection refused\. Where there is no route to it, ",
    onnx_without_a_batch: r"float \[3, 32, 32\], without a batch dimension: export it with one, \[N, 3, 32, 32\]$",
    onnx_of_tomorrow: r"opset 99 is too new to be run here, export it again with opset_version=20$",
    onnx_that_is_empty: r"mine\.onnx: not an ONNX file that can be run: ",
    onnx_that_is_a_folder: r"mine\.onnx' is a directory\.$",
    onnx_with_other_labels: r"names\.txt has 2 labels, but the output 'y' .* has 3 classes$",
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("wrong", "sentence"), CASES.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_wrong_things_are_refused_with_a_sentence(wrong, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "models"
    result = run(*wrong(Owner(tmp_path)), "--models", store)
    assert result.exit_code in {1, 2}
    assert isinstance(result.exception, SystemExit), "anything else would be a traceback"
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(sentence, last), last
    assert not list(store.rglob("card.json"))
    assert not (tmp_path / "ran").exists(), "code of a checkpoint was run"


@pytest.fixture
def changed(models, tmp_path) -> Path:
    """A store with one model, of which one byte was changed."""
    shutil.copytree(models / "lenet5", tmp_path / "models/lenet5")
    graph = tmp_path / "models/lenet5/1/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    return tmp_path / "models"


@pytest.mark.parametrize("command", [["verify"], ["predict", "lenet5", catalog.sample("coffee")]])
def test_a_changed_graph_is_not_used(changed, command):
    result = run(*command, "--models", changed)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "model.onnx was changed: its sha256 is" in result.output
    assert "Delete the folder and run `zooserve export lenet5`" in result.output
    assert '"score"' not in result.output


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=256k none {disk} || exit 77
mkdir {disk}/kept && {zooserve} {command}
code=$?
find {disk} -type f ! -name '*.lock'
exit $code
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a mount of its own")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("export lenet5 --models {disk}", r"/model\.onnx: No space left on device$"),
        ("predict lenet5 {photo} --annotate {disk}/kept/a.png --models {models}", "No space left on device$"),
    ],
    ids=["export", "annotate"],
)
def test_a_full_disk_is_said_and_nothing_is_left_behind(command, sentence, models, tmp_path):
    (disk := tmp_path / "disk").mkdir()
    values = {"disk": disk, "models": models, "photo": catalog.sample("coffee")}
    script = ON_A_SMALL_DISK.format(
        disk=disk,
        zooserve=Path(sys.executable).with_name("zooserve"),
        command=command.format(**values),
    )
    own_mounts = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(own_mounts, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("an own mount is not possible here")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(sentence, done.stderr.strip().splitlines()[-1]), done.stderr
    assert "model.onnx" not in done.stdout
