"""`zooserve add`: from a file to a card, a folder and an answer; or a sentence, and nothing written."""

import json
import re
import shutil

import pytest

from zoo import catalog
from zoo.card import read_model_card
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
    from export.own.checkpoint import draft_darknet
    from export.own.draft import Wishes

    card = draft_darknet(darknet["weights"], darknet["cfg"], Wishes("net", licence="MIT")).card
    assert (card.family, card.labels, card.recipe.height, card.recipe.width) == ("darknet", "coco80", 416, 416)


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
        (["net.pth"], "a checkpoint holds weights, but not the network: say --architecture"),
        (["net.pth", "--architecture", "resnet51", "--license", "MIT"], "--architecture resnet51: .* do not know it"),
        (["{weights}"], "Darknet's weights need their cfg: --cfg yolov4-tiny.cfg"),
        (["{weights}", "--cfg", "{cfg}", "--labels", "voc21"], "voc21 has 21 labels, but .* has 80 classes"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(run, tmp_path, my_onnx, darknet, arguments, message):
    (tmp_path / "net.pth").write_bytes(b"")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/old.toml").write_text("")
    places = {"onnx": my_onnx, "weights": darknet["weights"], "cfg": darknet["cfg"]}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code in {1, 2}
    assert re.search(message, result.stderr), result.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"net.pth", "cards", "old.toml"}


def test_a_failed_export_leaves_nothing(run, tmp_path, my_onnx):
    from export.own import adding

    draft = adding.propose(
        my_onnx, adding.Wishes("net", licence="MIT"), tmp_path, family=None, architecture=None, cfg=None, sample=None
    )
    draft.card.options["output"] = "no such output"
    with pytest.raises(adding.ExportError, match="'no such output', expected one of"):
        adding.publish(draft, my_onnx, tmp_path / "cards/net.toml", Store(tmp_path / "models"), (), print)
    assert list((tmp_path / "cards").iterdir()) == []
