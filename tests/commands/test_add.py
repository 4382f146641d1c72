"""`zooserve add`: from a file to a card, a folder and an answer; or a sentence, and nothing written."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from export.caffe.net import NetParameter
from zoo import catalog
from zoo.cli import main
from zoo.errors import CardError, ExportError
from zoo.model_card import read_model_card
from zoo.sources import fetch_all
from zoo.store import Store


@pytest.fixture(scope="session")
def darknet():
    return fetch_all(catalog.find("yolov4_tiny").sources)


def test_a_checkpoint_of_a_known_architecture(run, tmp_path):
    shutil.copy(fetch_all(catalog.find("mobilenet_v2").sources)["weights"], tmp_path / "net.pth")
    result = run("net.pth", "--architecture", "mobilenet_v2", "--license", "LicenseRef-own", "--size", 192, "--json")
    assert result.exit_code == 0, result.output
    added = json.loads(result.stdout)
    assert (added["name"], added["tried"]) == ("net", {})
    assert added["answer"]["predictions"][0]["label"] == "espresso"
    assert {fact[0]: fact[2] for fact in added["facts"]}["resize"] == "as torchvision's mobilenet_v2"
    card = read_model_card(tmp_path / "cards/net.toml")
    assert card == catalog.find("net")
    assert (card.family, card.recipe.height, card.licence.weights) == ("torchvision", 192, "LicenseRef-own")
    assert (tmp_path / "net.png").stat().st_size > 10_000
    assert Store(tmp_path / "models").verify("net", "1").recipe == card.recipe


def test_darknets_cfg_says_the_size(run, darknet):
    from export.importer.checkpoint import draft_darknet
    from export.importer.options import ImportOptions

    card = draft_darknet(darknet["weights"], darknet["cfg"], ImportOptions("net", licence="MIT")).card
    assert (card.family, card.labels, card.recipe.height, card.recipe.width) == ("darknet", "coco80", 416, 416)


@pytest.fixture(scope="session")
def squeezenet(tmp_path_factory):
    """Caffe's .caffemodel as it was published, and its layers as a deploy file."""
    weights = fetch_all(catalog.find("squeezenet1_1_caffe").sources)["weights"]
    net = NetParameter()
    net.ParseFromString(weights.read_bytes())
    for layer in net.layer:
        layer.ClearField("blobs")
        layer.ClearField("include")
    while net.layer[0].type != "Convolution":
        del net.layer[0]
    net.ClearField("input")
    folder = tmp_path_factory.mktemp("caffe")
    declared = (
        'layer { name: "d" type: "Input" top: "data" input_param { shape: { dim: 1 dim: 3 dim: 227 dim: 227 } } }'
    )
    (folder / "deploy.prototxt").write_text(declared + "\n" + text_format.MessageToString(net))
    shutil.copy(weights, folder / "net.caffemodel")
    return folder


def test_a_caffemodel_with_its_prototxt(run, squeezenet, tmp_path):
    files = [squeezenet / "net.caffemodel", "--prototxt", squeezenet / "deploy.prototxt"]
    result = run(*files, "--license", "BSD-2-Clause", "--accept-license", "LicenseRef-Caffe", "--json")
    assert result.exit_code == 0, result.output
    added = json.loads(result.stdout)
    assert added["answer"]["predictions"][0]["label"] == "espresso"
    card = read_model_card(tmp_path / "cards/net.toml")
    published = catalog.find("squeezenet1_1_caffe")
    assert (card.family, card.labels) == ("caffe", "imagenet1k")
    assert (card.recipe.height, card.recipe.width, card.normalise) == (227, 227, published.normalise)
    assert set(card.sources) == {"weights", "prototxt"}


@pytest.mark.parametrize(
    ("mean", "std", "made", "message"),
    [
        (None, None, (None, None), ""),
        ((0.0,) * 3, None, ((0.0,) * 3, None), ""),
        ((104.0, 117.0, 123.0), None, ((104.0, 117.0, 123.0), None), ""),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ""),
        ((0.5,) * 3, (1.0,) * 3, ((127.5,) * 3, (255.0,) * 3), ""),
        (None, (0.5,) * 3, (None, (127.5,) * 3), ""),
        ((0.0,) * 3, (255.0,) * 3, ((0.0,) * 3, (255.0,) * 3), ""),
        (
            (0.485, 0.456, 0.406),
            None,
            None,
            "--mean is 0.485,0.456,0.406, .* there is no --std: say --std 1",
        ),
        ((0.5,) * 3, (58.0,) * 3, None, "--std is 58,58,58: .* for 0..255, --mean is 127.5,127.5,127.5"),
        ((123.0,) * 3, (0.25,) * 3, None, "--mean is 123,123,123 .* for 0..255, --std is 63.75,63.75,63.75"),
    ],
)
def test_mean_and_deviation_are_of_one_range(mean, std, made, message):
    from export.importer.pixels import in_bytes

    if made is not None:
        assert in_bytes({"mean": mean, "std": std}) == dict(zip(("mean", "std"), made, strict=True))
        return
    with pytest.raises(CardError, match=message):
        in_bytes({"mean": mean, "std": std})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{onnx}", "--name", "Net"], "'Net' is no name: use at most 64 small letters"),
        (["{onnx}", "--name", "../net"], "'../net' is no name"),
        (["{onnx}", "--license", "MIT", "--size", "224x9000"], "expected sides of 1 to 4096 pixels"),
        (["{onnx}", "--name", "u2netp"], "there is a model 'u2netp' already"),
        (["{onnx}", "--name", "old"], "cards/old.toml exists: say another --name, or --yes"),
        (["{onnx}", "--license", "CC-BY-NC-4.0"], "--accept-license CC-BY-NC-4.0"),
        (["{onnx}"], "under which licence are its weights"),
        (["{onnx}", "--license", "MIT", "--labels", "coco80"], "coco80 has 80 labels, but .* has 1000 classes"),
        (["{onnx}", "--license", "MIT", "--mean", "1,2"], "expected three numbers, such as 123.675"),
        (["{onnx}", "--license", "MIT", "--size", "big"], "expected a side in pixels"),
        (["{onnx}", "--license", "MIT", "--task", "segment"], "a model that can segment answers"),
        (["net.pth"], "net.pth: It is empty: copy it, or export it, again"),
        (["net.pth", "--architecture", "resnet51", "--license", "MIT"], "--architecture resnet51: .* do not know it"),
        (["net.caffemodel"], "Caffe's weights need their deploy file: --prototxt net.prototxt"),
        (["net.caffemodel", "--prototxt", "net.pth", "--license", "MIT"], "not a Caffe model"),
        (["{onnx}", "--license", "MIT", "--photo", "net.pth"], r"net\.pth: not an image that can be read"),
        (["{onnx}", "--license", "MIT", "--mean", "0.5"], "--mean is 0.5,0.5,0.5, of pixels in 0..1"),
        (["{weights}"], "Darknet's weights need their cfg: --cfg yolov4-tiny.cfg"),
        (["{weights}", "--cfg", "{cfg}", "--labels", "voc21"], "voc21 has 21 labels, but .* has 80 classes"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(run, tmp_path, my_onnx, darknet, arguments, message):
    (tmp_path / "net.pth").write_bytes(b"")
    (tmp_path / "net.caffemodel").write_bytes(b"")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/old.toml").write_text("")
    places = {"onnx": my_onnx, "weights": darknet["weights"], "cfg": darknet["cfg"]}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code in {1, 2}
    assert re.search(message, result.stderr), result.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"net.pth", "net.caffemodel", "cards", "old.toml"}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("fails", ["export", "answer"])
def test_a_failed_add_leaves_all_as_it_was(run, tmp_path, make_table, monkeypatch, before, fails):
    """A good card, its labels and its folder stay; without them, nothing is there."""
    rows = np.zeros((300, 6), np.float32)
    rows[0] = (10, 10, 60, 50, 0.9, 1)
    given = [make_table(rows), "--license", "LicenseRef-own", "--accept-license", "AGPL-3.0-only", "--json"]
    if before:
        assert run(*given).exit_code == 0
    left = contents(tmp_path)
    from export.importer import adding

    def fail(*_: object, **__: object) -> None:
        raise ExportError("it went wrong")

    patched = {"export": (adding, "export_model"), "answer": (sys.modules["commands.add"], "answer_photo")}
    monkeypatch.setattr(*patched[fails], fail)
    (tmp_path / "names.txt").write_text("a\nb\n")
    result = run(*given, "--labels", "names.txt")
    assert result.exit_code == 1
    assert "it went wrong" in result.stderr, result.stderr
    (tmp_path / "names.txt").unlink()
    assert contents(tmp_path) == left
    if before:
        assert Store(tmp_path / "models").verify("net", "1").labels == ("cup", "plate")
        assert CliRunner().invoke(main, ["export", "net"]).output.count("up to date") == 1


def contents(folder):
    """Every file below a folder, with its bytes; images of answers left out."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"}
