"""A class name is drawn in letters that its font has, or as `class 7`: never as empty rectangles."""

from pathlib import Path

import pytest
from PIL import ImageFont

from service.vision import fonts
from service.vision.fonts import drawable, font

DEJAVU = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
NAMES = ["cup", "caf\u00e9", "杯子", "Тарелка", "طبق", "จาน", "🍽️", "접시", "दर्पण", "naïve — “x”", "ﬁsh", "\U0010fffd"]


@pytest.fixture
def system(monkeypatch):
    """Set the folders with the system's fonts; caches are cleared before and after the test."""

    def forget():
        for cached in (drawable, fonts._paths, fonts._has, fonts._plain):
            cached.cache_clear()

    def have(*folders):
        forget()
        monkeypatch.setattr(fonts, "_FOLDERS", folders)

    yield have
    monkeypatch.undo()
    forget()


def lacks(name, letter):
    """Whether the font of a name draws a letter like one that it lacks."""
    plain = font("", 16) if not name.path else ImageFont.truetype(name.path, 16, layout_engine=ImageFont.Layout.BASIC)
    return bytes(plain.getmask(letter)) == bytes(plain.getmask("\U0010ffff"))


@pytest.mark.parametrize("label", NAMES)
@pytest.mark.parametrize("folders", [(), fonts._FOLDERS])
def test_no_letter_is_drawn_as_an_empty_rectangle(system, label, folders):
    system(*folders)
    name = drawable(label, 7)
    assert name.text
    assert not any(lacks(name, letter) for letter in name.text if letter not in fonts._INVISIBLE)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("cup", "cup"),
        ("", "class 7"),
        ("  \n ", "class 7"),
        ("\u200d\u202e", "class 7"),
        ("杯子", "class 7"),
        ("coffee\ncup", "coffee cup"),
        ("a\r\n\tb\x00\x1b[0m", "a b[0m"),
        ("evil\u202ename", "evilname"),
        ("café crème", "cafe creme"),  # readable without a font that has the accents
        ("x" * 48, "x" * 48),
        ("x" * 100_000, "x" * 48 + "…"),
        ("word " * 50, "word word word word word word word word word wor…"),
    ],
)
def test_names_with_only_the_built_in_font(system, label, text):
    system()
    assert drawable(label, 7) == (text, "")


@pytest.mark.skipif(not Path(DEJAVU).exists(), reason="needs DejaVu Sans (apt-get install fonts-dejavu-core)")
@pytest.mark.parametrize(
    ("label", "shaped", "text"),
    [
        ("Тарелка", True, "Тарелка"),
        ("café", True, "café"),
        ("طبق", True, "طبق"),
        ("طبق", False, "class 7"),  # without Raqm its letters would not join, and run the wrong way
        ("Тарелка 杯", True, "class 7"),  # no one font has both
    ],
)
def test_names_with_a_font_of_the_system(system, monkeypatch, label, shaped, text):
    system(str(Path(DEJAVU).parent))
    has_raqm = fonts.features.check("raqm")
    if shaped and not has_raqm:
        pytest.skip("this Pillow has no Raqm")
    monkeypatch.setattr(fonts.features, "check", lambda _: shaped)
    name = drawable(label, 7)
    assert name.text == text
    assert bool(name.path) == (text == label)


def test_files_that_are_not_fonts_are_skipped(system, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "broken.ttf").write_bytes(b"no font")
    system(str(tmp_path), str(tmp_path / "nowhere"))
    assert drawable("Тарелка", 3) == ("class 3", "")
