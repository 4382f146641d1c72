"""Cards: every wrong field is named, with its path."""

import json
import os
from pathlib import Path

import pytest

from zoo.card import Licence, Recipe
from zoo.errors import CardError
from zoo.model_card import Source, TensorCard, read_model_card
from zoo.served_card import read_served_card, write_served_card

GOOD = """
name = "net"
version = "1"
task = "classify"
family = "torchvision"
title = "Net"
labels = "digits"
licence = { code = "MIT", weights = "MIT" }
recipe = { resize = "crop", short_side = 256, height = 224, width = 224 }
expect = [{ photo = "coffee", label = "espresso", score = 0.9 }]

[normalise]
mean = [1, 2, 3]

[sources.weights]
package = "net==1.0"
member = "net.pth"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


def write(folder: Path, text: str, name: str = "net") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_good_card_is_read(tmp_path):
    card = read_model_card(write(tmp_path, GOOD))
    assert (card.name, card.recipe.short_side, card.normalise.mean) == ("net", 256, (1.0, 2.0, 3.0))
    assert card.sources["weights"] == Source(package="net==1.0", member="net.pth", sha256="0" * 64)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"classify"', '"clasify"', r"\$\.task"),
        ('"Net"', "7", r"\$\.title"),
        ('version = "1"', 'version = "v1"', r"\$\.version"),
        ('labels = "digits"', 'labels = "../digits"', r"\$\.labels"),
        ('labels = "digits"', 'labels = "\\u0000.txt"', r"\$\.labels"),
        ('package = "net==1.0"\nmember = "net.pth"', 'file = "a\\u0000b"', r"\$\.sources\[\.\.\.\]\.file"),
        ('code = "MIT", ', "", r"`code` - at `\$\.licence`"),
        ("height = 224", "height = 0", r"\$\.recipe\.height"),
        ("height = 224", "height = 5000", r"\$\.recipe\.height"),
        ('"crop"', '"letterbox"', r"`short_side` belongs to `resize = \"crop\"`.*\$\.recipe"),
        ("short_side = 256, ", "", r"`short_side` belongs to `resize = \"crop\"`.*\$\.recipe"),
        ("short_side = 256", "short_side = 200", r"`short_side` is smaller than the crop - at `\$\.recipe`"),
        ("[1, 2, 3]", "[1, 2]", r"\$\.normalise\.mean"),
        ("[1, 2, 3]", "[1, 2, nan]", r"finite.*\$\.normalise"),
        ("mean =", "std = [0, 1, 1]\nmean =", r"`std` not zero - at `\$\.normalise`"),
        ("score = 0.9", "score = 90", r"\$\.expect\[0\]\.score"),
        ("score = 0.9", "scores = 0.9", r"`scores` - at `\$\.expect\[0\]`"),
        ('package = "net==1.0"', 'package = "net"', r"\$\.sources\[\.\.\.\]\.package"),
        ('package = "net==1.0"', 'package = "npm:net@1 && ls"', r"\$\.sources\[\.\.\.\]\.package"),
        ('package = "net==1.0"\n', "", r"give exactly one of `url`, `package` and `file` - at `\$\.sources"),
        ('member = "net.pth"\n', "", r"`package` and `member` go together - at `\$\.sources"),
        ('package = "net==1.0"\nmember = "net.pth"', 'url = "ftp://host/net.pth"', r"\$\.sources\[\.\.\.\]\.url"),
        ('package = "net==1.0"\nmember = "net.pth"', 'url = "http://[::1/net.pth"', r"Invalid IPv6 URL.*\$\.sources"),
        ("sha256 =", "md5 =", r"`md5` - at `\$\.sources"),
        ("sha256 =", "# sha256 =", r"`sha256` is missing .*\$\.sources"),
        ('000000"', '00000G"', r"\$\.sources\[\.\.\.\]\.sha256"),
        ('name = "net"', 'name = "net2"', "`name` is 'net2', but the file is called 'net'"),
        ("title =", "title", r"net\.toml: .*line 6"),
        ('"net"', '"net\\n"', r"\$\.name"),
        ("short_side = 256", f"short_side = {'9' * 5000}", r"net\.toml: .*digits"),
        ("[1, 2, 3]", "[" * 5000, r"net\.toml: it is nested too deeply"),
    ],
)
def test_an_invalid_field_is_named(tmp_path, old, new, message):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(CardError, match=message) as error:
        read_model_card(path)
    assert str(path) in str(error.value)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = write(tmp_path, GOOD)
    card = read_model_card(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_model_card(path) == card


def test_files_that_are_not_cards_are_refused(tmp_path):
    with pytest.raises(CardError, match=r"gone\.toml cannot be read: No such file"):
        read_model_card(tmp_path / "gone.toml")
    (tmp_path / "net.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(CardError, match=r"net\.toml: "):
        read_model_card(tmp_path / "net.toml")
    (tmp_path / "card.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(CardError, match=r"card\.json: "):
        read_served_card(tmp_path / "card.json")


@pytest.mark.parametrize("file", ["weights/net.pth", "../net.pth", "/opt/net.pth"])
def test_a_relative_file_is_taken_from_the_card_s_folder(tmp_path, file):
    text = GOOD.replace('package = "net==1.0"\nmember = "net.pth"', f'file = "{file}"')
    assert read_model_card(write(tmp_path, text)).sources["weights"].file == str((tmp_path / file).resolve())


def test_a_served_card_is_read_back_unchanged(tmp_path, served):
    write_served_card(served.card, tmp_path / "card.json")
    assert read_served_card(tmp_path / "card.json") == served.card


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fp32"', '"fp31"', r"\$\.precision"),
        ('"float32"', '"float64"', r"\$\.outputs\[0\]\.dtype"),
        ('"labels"', '"label"', r"`label`|missing required field `labels`"),
        ('"opset": 20', '"opset": "20"', r"\$\.opset"),
    ],
)
def test_a_damaged_served_card_names_its_field(tmp_path, served, old, new, message):
    path = tmp_path / "card.json"
    write_served_card(served.card, path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CardError, match=message):
        read_served_card(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' + "[" * 200_000, "nested too deeply"),
        ('{"task": "classify", "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"name": "' + "x" * 5_000_000 + '"}', "more than the 4,000,000 bytes"),
        ('{"name": "\\ud800"}', "card.json: "),
        ('{"task": 1e999}', r"\$\.task"),
        ("[]", "Expected `object`"),
        ("null", "Expected `object`"),
        ("", "truncated"),
        ("\ufeff{}", "malformed"),
        ('{"name": 1, "task": "tensors", "task": "classify"}', r"\$\.name"),
    ],
    ids=range(10),
)
def test_a_card_json_that_is_not_a_card_is_refused_at_once(tmp_path, text, message):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CardError, match=message):
        read_served_card(tmp_path / "card.json")


@pytest.mark.parametrize("photo", ["../../secret.png", "/etc/passwd", "a/b.png", ".hidden", "a\x00b", "a\n", "", ".."])
def test_a_golden_photo_must_be_in_its_folder(tmp_path, served, photo):
    path = tmp_path / "card.json"
    write_served_card(served.card, path)
    card = json.loads(path.read_text())
    card["golden"][0]["photo"] = photo
    path.write_text(json.dumps(card))
    with pytest.raises(CardError, match=r"\$\.golden\[0\]\.photo"):
        read_served_card(path)


@pytest.mark.parametrize("size", [-1, 1 << 40])
def test_an_impossible_size_of_a_graph_is_refused(tmp_path, served, size):
    path = tmp_path / "card.json"
    write_served_card(served.card, path)
    path.write_text(path.read_text().replace('"size": 5', f'"size": {size}'))
    with pytest.raises(CardError, match=r"\$\.size"):
        read_served_card(path)


@pytest.mark.timeout(10)
def test_a_card_that_is_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "net.toml")
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(CardError, match="not a regular file"):
        read_model_card(tmp_path / "net.toml")
    with pytest.raises(CardError, match="not a regular file"):
        read_served_card(tmp_path / "card.json")


def test_a_graph_that_is_served_unchanged_has_no_recipe():
    fields = {"name": "net", "version": "1", "task": "tensors", "title": "", "sources": {}}
    with pytest.raises(ValueError, match="has no `recipe`: name a `family`"):
        TensorCard(**fields, licence=Licence("MIT", "MIT"), recipe=Recipe(8, 8, "stretch"))
    TensorCard(**fields, licence=Licence("MIT", "MIT"), recipe=Recipe(8, 8, "stretch"), family="style")
