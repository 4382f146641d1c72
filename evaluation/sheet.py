"""A white sheet with a title for figures, with a common font, colours and margins. `draw_*` use it."""

from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (31, 41, 55)
GREY: Colour = (107, 114, 128)
PALE: Colour = (243, 244, 246)
WHITE: Colour = (255, 255, 255)
RIGHT: Colour = (30, 94, 168)  # of correct answers
WRONG: Colour = (203, 65, 38)
MARGIN = 36

_TITLE, _SUBTITLE = 30, 18


class Sheet:
    """An image to draw on; figures begin `top` pixels below its upper edge."""

    def __init__(self, width: int, height: int, title: str, subtitle: str) -> None:
        """Make a sheet of `width` x `height` pixels, plus the height of the title."""
        self.top = MARGIN + round(2.6 * _TITLE) + MARGIN // 2
        self.image = Image.new("RGB", (width, height + self.top), WHITE)
        self.pen = ImageDraw.Draw(self.image)
        inner = width - 2 * MARGIN
        self.text(MARGIN, MARGIN, title, size=_TITLE, width=inner, anchor="lt")
        self.text(MARGIN, MARGIN + round(1.5 * _TITLE), subtitle, GREY, size=_SUBTITLE, width=inner, anchor="lt")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = INK,
        *,
        size: int,
        width: float | None = None,
        anchor: Literal["lt", "lm", "mm", "rm", "mt"] = "lm",
    ) -> None:
        """Draw a line of text, cut to `width` pixels."""
        self.pen.text((x, y), cut(text, size, width), colour, font(size), anchor=anchor)

    def upright(
        self, x: int, y: int, text: str, colour: Colour = INK, *, size: int, width: float | None = None
    ) -> None:
        """Draw a line of text that reads upwards: `x` is its horizontal middle, `y` its upper end."""
        text = cut(text, size, width)
        line = Image.new("L", (max(1, round(font(size).getlength(text))), round(1.4 * size)))
        ImageDraw.Draw(line).text((0, line.height / 2), text, 255, font(size), anchor="lm")
        turned = line.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(colour, (x - turned.width // 2, y), turned)


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of all figures, `size` pixels high."""
    return ImageFont.load_default(size)


def length(text: str, size: int) -> float:
    """Return the width of a line of text in pixels."""
    return font(size).getlength(text)


def cut(text: str, size: int, width: float | None) -> str:
    """Shorten a line of text to at most `width` pixels, with an ellipsis; None: do not."""
    if width is None or length(text, size) <= width:
        return text
    while text and length(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def blend(colour: Colour, share: float) -> Colour:
    """Mix white and a colour: white for a `share` of 0, the colour for 1."""
    red, green, blue = (round(255 + (value - 255) * min(1.0, max(0.0, share))) for value in colour)
    return red, green, blue
