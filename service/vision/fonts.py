"""Chooses fonts for class names: Pillow's built-in font, or one of the system that has all of a name's letters.

Called by `draw`. A letter that a font lacks would be drawn as an empty rectangle. So if no font has all letters, the
name is drawn without accents, or as `class 7`.
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
_NONE = "\U0010ffff"  # not a character: fonts draw it like a letter that they lack
_INVISIBLE = frozenset("\u200c\u200d\ufe0e\ufe0f")  # they join letters, or choose a variant of them
_ALWAYS_NEEDED = "0123456789.%…"  # a name is drawn with its score, or cut


class Name(NamedTuple):
    """A class name and the font to draw it with.

    Attributes:
        text: the name as it is drawn.
        path: of the font's file; "" for the built-in font.
    """

    text: str
    path: str


@lru_cache(maxsize=4096)
def drawable(label: str, class_id: int) -> Name:
    """Find a font for a class name in one line. If there is none: without accents, or as `class 7` by its class id."""
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
    """Cut a long name, replace white space by single blanks, and remove control characters."""
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
    letters = sorted((set(text) | set(_ALWAYS_NEEDED)) - _INVISIBLE - {" "})
    return next((path for path in (_BUILT_IN, *_paths()) if all(_has(path, c) for c in letters)), None)


def _needs_shaping(letter: str) -> bool:
    """Whether a letter is written right to left, or combines with another. Both need Raqm, which some Pillows lack."""
    return unicodedata.bidirectional(letter) in {"R", "AL"} or unicodedata.category(letter) in {"Mn", "Mc"}


@lru_cache(maxsize=1)
def _paths() -> tuple[str, ...]:
    """Paths of the system's fonts, upright sans-serif ones first."""
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
    """Whether a font has a letter: it draws something, which differs from what it draws for a letter that it lacks."""
    plain = _plain(path)
    if plain is None:
        return False
    mask = bytes(plain.getmask(letter))
    return any(mask) and mask != bytes(plain.getmask(_NONE))


@lru_cache(maxsize=_MOST_FONTS + 1)
def _plain(path: str) -> Font | None:
    """Open a font without text shaping; None if it cannot be opened, such as a font of colour bitmaps."""
    try:
        return (
            ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC) if path else ImageFont.load_default(16)
        )
    except OSError:
        return None
