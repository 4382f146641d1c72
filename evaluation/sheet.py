"""A white sheet with a title to draw figures on: one font, one set of colours and margins. `draw_*` here use it."""

from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (31, 41, 55)
GREY: Colour = (107, 114, 128)
PALE: Colour = (243, 244, 246)
WHITE: Colour = (255, 255, 255)
RIGHT: Colour = (30, 94, 168)  # what is as it should be
WRONG: Colour = (203, 65, 38)
MARGIN = 36

_TITLE, _SUBTITLE = 30, 18


class Sheet:
    """An image that is drawn on; `top` is where a figure begins, in pixels."""

    def __init__(self, width: int, height: int, title: str, subtitle: str) -> None:
        """Begin a sheet of `width` x `height` pixels, its title's room not counted."""
        self.top = MARGIN + round(2.6 * _TITLE) + MARGIN // 2
        self.image = Image.new("RGB", (width, height + self.top), WHITE)
        self.pen = ImageDraw.Draw(self.image)
        room = width - 2 * MARGIN
        self.text(MARGIN, MARGIN, title, size=_TITLE, room=room, anchor="lt")
        self.text(MARGIN, MARGIN + round(1.5 * _TITLE), subtitle, GREY, size=_SUBTITLE, room=room, anchor="lt")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = INK,
        *,
        size: int,
        room: float | None = None,
        anchor: Literal["lt", "lm", "mm", "rm", "mt"] = "lm",
    ) -> None:
        """Write a line, cut to `room` pixels."""
        self.pen.text((x, y), cut(text, size, room), colour, font(size), anchor=anchor)

    def upright(self, x: int, y: int, text: str, colour: Colour = INK, *, size: int, room: float | None = None) -> None:
        """Write a line that reads upwards and ends at `x`, `y`: `x` is its middle, `y` its upper end."""
        text = cut(text, size, room)
        line = Image.new("L", (max(1, round(font(size).getlength(text))), round(1.4 * size)))
        ImageDraw.Draw(line).text((0, line.height / 2), text, 255, font(size), anchor="lm")
        turned = line.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(colour, (x - turned.width // 2, y), turned)


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters of all figures, `size` pixels high."""
    return ImageFont.load_default(size)


def length(text: str, size: int) -> float:
    """How many pixels a line needs."""
    return font(size).getlength(text)


def cut(text: str, size: int, room: float | None) -> str:
    """The line, or as much of its beginning as has room, with an ellipsis."""
    if room is None or length(text, size) <= room:
        return text
    while text and length(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def blend(colour: Colour, share: float) -> Colour:
    """White turning into a colour as `share` goes from 0 to 1."""
    red, green, blue = (round(255 + (value - 255) * min(1.0, max(0.0, share))) for value in colour)
    return red, green, blue
