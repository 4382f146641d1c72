"""Which sources decide how a model comes out: those that a conversion imports, and no others."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from export import code
from zoo import catalog
from zoo.card import Licence
from zoo.model_card import TensorCard

ROOT = Path(code.__file__).parent.parent


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the sources that may be changed."""
    for package in ("export", "zoo"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "checkpoints"))
    monkeypatch.setattr(code, "_ROOT", tmp_path)

    def forget():
        for cached in (code._hash, code._imported, code._file):
            cached.cache_clear()

    def change(file: str, text: str = "\nCHANGED = True\n") -> None:
        path = tmp_path / file
        path.write_text(path.read_text() + text)
        forget()

    forget()
    yield change
    forget()


def hashes() -> dict[str, str]:
    tensors = TensorCard(
        name="net", version="1", task="tensors", title="Net", licence=Licence("MIT", "MIT"), sources={}
    )
    cards = [catalog.find(name) for name in ("mobilenet_v2", "yolov4_tiny", "lenet5", "u2netp")]
    return {card.name: code.code_of(card) for card in (*cards, tensors)} | {"variants": code.code_of_variants()}


EVERYONE = {"mobilenet_v2", "yolov4_tiny", "lenet5", "u2netp", "net", "variants"}
IMAGES = EVERYONE - {"net"}


@pytest.mark.parametrize(
    ("file", "concerned"),
    [
        ("export/convert.py", EVERYONE),  # graphs that take tensors import it through `export.onnx_file`
        ("export/heads.py", EVERYONE),
        ("export/parity.py", EVERYONE),
        ("export/golden.py", IMAGES),
        ("export/pipeline.py", IMAGES),
        ("zoo/recipe.py", EVERYONE),
        ("export/families/torchvision.py", {"mobilenet_v2"}),
        ("export/activation.py", {"mobilenet_v2"}),
        ("export/darknet/layers.py", {"yolov4_tiny"}),
        ("export/families/lenet.py", {"lenet5"}),
        ("export/families/onnx.py", {"u2netp"}),
        ("export/tensors.py", {"net"}),
        ("export/precision.py", {"variants"}),
        ("export/agreement.py", {"variants"}),
        ("export/families/timm.py", set()),
        ("export/command.py", set()),
        ("export/importer/adding.py", set()),
        ("export/attack.py", set()),
        ("zoo/listing.py", set()),
    ],
)
def test_a_change_concerns_what_it_takes_part_in(sources, file, concerned):
    before = hashes()
    sources(file)
    after = hashes()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == concerned


def test_imports_in_functions_and_of_packages_count(sources):
    sources("export/families/lenet.py", "\n\ndef late():\n    from export import padding\n    import export.steps\n")
    before = code.code_of(catalog.find("lenet5"))
    sources("export/padding.py")
    assert code.code_of(catalog.find("lenet5")) != before


def test_a_family_that_there_is_not_is_no_fault(sources):
    card = msgspec.structs.replace(catalog.find("lenet5"), family="theano")
    assert code.code_of(card) != code.code_of(catalog.find("lenet5"))


def test_the_same_sources_have_the_same_hash_everywhere(sources):
    copied = hashes()
    program = "import sys; from tests.export.test_code import hashes; print(sorted(hashes().items()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == str(sorted(copied.items()))
