"""Models by name: your cards, cards by path, and those that a library writes."""

import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zoo import catalog, libraries
from zoo.cli import main
from zoo.errors import CardError, UnknownModelError, ZooError
from zoo.sources.cache import Cache
from zoo.sources.pins import pin_path

ZOO = Path(catalog.__file__).parent / "cards"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def own(tmp_path, monkeypatch, models):
    """A folder with one of your cards, a copy of mobilenet_v2's under another name."""
    folder = tmp_path / "own"
    folder.mkdir()
    card = (ZOO / "mobilenet_v2.toml").read_text().replace('name = "mobilenet_v2"', 'name = "my_net"')
    (folder / "my_net.toml").write_text(card.replace('weights = "BSD-3-Clause"', 'weights = "AGPL-3.0-only"'))
    monkeypatch.setenv("ZOOSERVE_CARDS", str(folder))
    return folder


def test_your_cards_are_found_listed_and_shown(own):
    assert catalog.find("my_net").licence.weights == "AGPL-3.0-only"
    assert catalog.find("mobilenet_v2").licence.weights == "BSD-3-Clause"
    assert "my_net" in {card.name for card in catalog.cards()}
    listed = run("list").stdout
    assert "AGPL-3.0-only *" in next(line for line in listed.splitlines() if line.startswith("my_net"))
    assert "--accept-license LICENCE" in listed
    assert "--accept-license AGPL-3.0-only" in run("show", "my_net").stdout
    assert "my_net" in run("show", str(own / "my_net.toml")).stdout


def test_the_working_directory_has_a_folder_of_cards_too(own, monkeypatch):
    monkeypatch.delenv("ZOOSERVE_CARDS")
    monkeypatch.chdir(own.parent)
    assert "my_net" not in catalog.names()
    own.rename(own.parent / "cards")
    assert "my_net" in catalog.names()


def test_a_card_of_the_zoo_is_not_shadowed(own):
    (own / "u2netp.toml").write_text("")
    with pytest.raises(CardError, match=r"u2netp\.toml has the name of a card of the zoo: rename"):
        catalog.find("mobilenet_v2")


def test_a_faulty_card_does_not_hide_the_others(own):
    (own / "half.toml").write_text('name = "half"\n')
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["half"]["state"] == "refused"
    assert "missing required field" in rows["half"]["problem"]
    assert rows["my_net"]["state"] == "not exported"
    assert "\nhalf: " in run("list").stdout


def test_a_pin_that_cannot_be_read_does_not_hide_the_others(own, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "cache"))
    card = own / "my_net.toml"
    text = re.sub(
        r"(?s)\[sources.*", '[sources.weights]\nurl = "https://host/n.pth"\ntrust_first = true\n', card.read_text()
    )
    card.write_text(text)
    Cache().keep(pin_path(catalog.find("my_net").sources["weights"]), b"{")
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert "should hold the hash of a first download" in rows["my_net"]["problem"]
    assert rows["u2netp"]["problem"] == ""


def test_a_library_lists_its_models_with_licence_size_and_source(models):
    rows = {row["name"]: row for row in json.loads(run("list", "torchvision", "--json").stdout)}
    assert len(rows) > 80
    resnet = rows["resnet50"]
    assert (resnet["task"], resnet["licence"], resnet["state"]) == ("classify", "BSD-3-Clause", "not exported")
    assert resnet["sources"] == {"weights": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"}
    assert resnet["size"] == pytest.approx(102_540_417, abs=1024)
    assert rows["vit_h_14"]["state"] == "refused"
    assert "2 GiB" in rows["vit_h_14"]["problem"]
    assert rows["mobilenet_v2"]["sources"]["weights"].startswith("pkg:pypi/"), "the zoo's own card comes first"


def test_a_library_may_describe_its_models_without_writing_cards(models, monkeypatch, tmp_path):
    (tmp_path / "hubbed.py").write_text(
        """
from zoo.card import Licence
from zoo.errors import ExportError, SourceError
from zoo.libraries import Description


def names():
    return ["small", "odd"]


def card_for(name):
    raise SourceError("there is no network")


def describe(name):
    if name == "odd":
        raise ExportError("odd: under [sources.weights] it has no file")
    return Description("detect", "Small", "hubbed", Licence("MIT", "AGPL-3.0-only"), {"weights": "https://hub/s.pt"})
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(libraries, "entry_points", lambda group: [EntryPoint("hubbed", "hubbed", group)])
    small, odd = json.loads(run("list", "hubbed", "--json").stdout)
    assert (small["state"], small["licence"], small["accept"]) == ("not exported", "AGPL-3.0-only", ["AGPL-3.0-only"])
    assert (small["task"], small["size"], small["sources"]) == ("detect", None, {"weights": "https://hub/s.pt"})
    assert odd["state"] == "refused"
    assert "odd: under [sources.weights] it has no file" in run("list", "hubbed").stdout


def test_every_library_has_a_summary_and_models():
    for library in libraries.libraries():
        assert library.summary, library.name
        if not library.missing:
            module = library.load()
            assert module.names()
            assert module.card_for("no such model") is None


def test_show_finds_models_of_libraries(models):
    shown = run("show", "resnet50").stdout
    assert "resnet50 of torchvision" in shown
    assert "no: run `zooserve export resnet50`" in shown


@pytest.mark.parametrize(
    ("imports", "extra", "message"),
    [
        ("timm_of_old", "export", "needs timm_of_old, not installed"),
        ("timm", "timm", r"not installed: pip install -e '\.\[timm\]'"),
    ],
)
def test_a_library_that_is_not_installed_is_named_and_others_still_work(monkeypatch, tmp_path, imports, extra, message):
    (tmp_path / "needy.py").write_text(f'"""Needy. More."""\nimport {imports}\n')
    monkeypatch.syspath_prepend(tmp_path)
    hidden = libraries.importlib.util.find_spec
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None if name == imports else hidden(name))
    entries = [EntryPoint("needy", "needy", "zooserve.cards"), *libraries.entry_points(group="zooserve.cards")]
    monkeypatch.setattr(libraries, "entry_points", lambda group: entries)
    library = libraries.library("needy")
    assert (library.summary, library.extra, library.missing) == ("Needy", extra, (imports,))
    with pytest.raises(ZooError, match=message):
        library.load()
    assert libraries.find_card("resnet50").family == "torchvision"
    with pytest.raises(UnknownModelError, match=message):
        libraries.find_card("resnet51")
    assert "needy" not in sys.modules


@pytest.mark.parametrize("command", ["export", "fetch"])
def test_who_names_a_file_or_a_pipeline_is_told_what_to_run(command, tmp_path):
    file = tmp_path / "my net.pt"
    file.touch()
    for name, said in (
        (str(file), f"is a file, not the name of a model: `zooserve add '{file}'` makes a card"),
        ("pets", "pets is a pipeline, which is made of models: `zooserve export yolov4_tiny mobilenet_v2`"),
    ):
        answer = run(command, name)
        assert answer.exit_code == 1
        assert said in answer.stderr


def test_an_unknown_library_is_an_error():
    result = run("list", "torchvison")
    assert result.exit_code == 1
    assert "no library 'torchvison' knows models by name; there are torchvision" in result.stderr


@pytest.mark.parametrize(
    ("filters", "some", "none"),
    [
        (("--task", "segment"), "u2netp", "yolov8n"),
        (("--licence", "permissive"), "mobilenet_v2", "yolov8n"),
        (("--license", "agpl-3.0-only"), "yolov8n", "mobilenet_v2"),
        (("--task", "detect", "--licence", "permissive"), "yolov4_tiny", "u2netp"),
    ],
)
def test_lists_are_filtered(models, filters, some, none):
    names = {row["name"] for row in json.loads(run("list", *filters, "--json").stdout)}
    assert some in names
    assert none not in names


def test_a_filter_that_nothing_passes_says_what_there_is(models):
    result = run("list", "--task", "translate", "--licence", "MIT")
    assert result.exit_code == 1
    assert "no model passes --task translate and --licence MIT: there are the tasks classify, detect" in result.stderr


def test_ultralytics_is_listed_with_mirrors_and_marks_of_first_downloads(models, monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: zooserve[export] brings it")
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "cache"))
    rows = {row["name"]: row for row in json.loads(run("list", "ultralytics", "--json").stdout)}
    assert rows["yolo11m"]["first_downloads"] == {"weights": ""}
    assert rows["yolo11m"]["accept"] == ["AGPL-3.0-only"]
    assert rows["yolov8n"]["first_downloads"] == {}
    assert rows["yolov8n"]["mirrors"] == {"weights": ["pkg:pypi/aissemble-inference-yolo@1.5.0#yolov8n.pt"]}
    lines = {line.split()[0]: line for line in run("list", "ultralytics").stdout.splitlines() if line.strip()}
    assert "https +" in lines["yolo11m"]
    assert "https, pypi" in lines["yolov8n"]
    assert "+ the publisher gives no hash" in run("list", "ultralytics").stdout
    assert "the first download counts" in run("show", "yolo11m").stdout
