"""Fonts for class names in drawings: the built-in one, else one of the system that has every letter.

`service.vision.draw` asks. A letter that a font lacks is drawn as an empty rectangle, so where no font has a name's
letters, the name is written without accents, or as `class 7`.
"""

import os
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont, features

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_SUFFIXES = {".ttf", ".otf", ".ttc"}
_MOST_FONTS = 300
_MOST_LETTERS = 48  # of a name; longer ones are cut
_UNUSUAL = re.compile("bold|italic|oblique|mono|serif|cond|light|thin|black", re.IGNORECASE)
_BUILT_IN = ""
_NONE = "\U0010ffff"  # a number that is no character: fonts draw what they draw for letters that they lack
_INVISIBLE = frozenset("\u200c\u200d\ufe0e\ufe0f")  # they join or vary their neighbours
_BESIDE = "0123456789.%…"  # what stands beside a name


class Name(NamedTuple):
    """A class name as it can be drawn, and the font's file that has its letters ("": the built-in font)."""

    text: str
    path: str


@lru_cache(maxsize=4096)
def drawable(label: str, class_id: int) -> Name:
    """Return a class name in one line of letters that some font has, else without accents, else as `class 7`."""
    text = _one_line(label)
    for candidate in (text, _without_accents(text)):
        if set(candidate) - _INVISIBLE - {"…"} and (path := _font_with(candidate)) is not None:
            return Name(candidate, path)
    return Name(f"class {class_id}", _BUILT_IN)


@lru_cache(maxsize=128)
def font(path: str, size: int) -> Font:
    """Open a font at a size in pixels."""
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _one_line(label: str) -> str:
    """Cut a long name, put blanks in place of white space, and leave out what controls text, or is no character."""
    start = label[: 2 * _MOST_LETTERS]
    kept = (c for c in start if c.isspace() or c in _INVISIBLE or unicodedata.category(c)[0] != "C")
    line = " ".join("".join(kept).split())
    return line if len(line) <= _MOST_LETTERS and len(start) == len(label) else f"{line[:_MOST_LETTERS].rstrip()}…"


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _font_with(text: str) -> str | None:
    """Return the path of a font that has every letter of a text, or None."""
    if any(_needs_shaping(c) for c in text) and not features.check("raqm"):
        return None
    letters = sorted((set(text) | set(_BESIDE)) - _INVISIBLE - {" "})
    return next((path for path in (_BUILT_IN, *_paths()) if all(_has(path, c) for c in letters)), None)


def _needs_shaping(letter: str) -> bool:
    """Whether a letter is written from the right, or stands on another: both need Raqm, which not every Pillow has."""
    return unicodedata.bidirectional(letter) in {"R", "AL"} or unicodedata.category(letter) in {"Mn", "Mc"}


@lru_cache(maxsize=1)
def _paths() -> tuple[str, ...]:
    """The system's fonts, upright sans-serif ones first."""
    found = [
        Path(folder, name)
        for root in _FOLDERS
        for folder, _, names in os.walk(Path(root).expanduser())
        for name in names
        if Path(name).suffix.lower() in _SUFFIXES
    ]
    found.sort(key=lambda path: (len(_UNUSUAL.findall(path.stem)), "sans" not in path.stem.lower(), path.name))
    return tuple(map(str, found[:_MOST_FONTS]))


@lru_cache(maxsize=100_000)
def _has(path: str, letter: str) -> bool:
    """Whether a font draws something for a letter, and something else than for one that it lacks."""
    plain = _plain(path)
    if plain is None:
        return False
    mask = bytes(plain.getmask(letter))
    return any(mask) and mask != bytes(plain.getmask(_NONE))


@lru_cache(maxsize=_MOST_FONTS + 1)
def _plain(path: str) -> Font | None:
    """A font that draws letter by letter, or None where it cannot be opened at any size, as those of colour bitmaps."""
    try:
        return (
            ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC) if path else ImageFont.load_default(16)
        )
    except OSError:
        return None
