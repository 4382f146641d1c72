"""Draws one image before and after an attack, their difference, and the model's answers to both."""

import numpy as np
from PIL import Image

from evaluation.attack import Case, Images
from evaluation.sheet import GREY, INK, MARGIN, PALE, Sheet
from service.results import Classification
from service.vision.draw import colour_of

_SIDE = 400  # of a panel, in pixels
_GAP = 76
_ROW, _LETTERS = 40, 20


def draw_attack(case: Case, title: str) -> Image.Image:
    """Draw the panels "before + perturbation = after", with the best five answers below the first and the last."""
    setting = case.setting
    steps = f", {setting.steps} steps" if setting.steps > 1 else ""
    level = "level" if setting.epsilon == 1 else "levels"
    subtitle = f"{case.name}: {setting.attack}, at most {setting.epsilon} of 255 grey {level} per channel{steps}"
    rows = max(len(case.answers_before), len(case.answers_after))
    sheet = Sheet(3 * _SIDE + 2 * _GAP + 2 * MARGIN, _SIDE + 50 + _ROW * rows + MARGIN, title, subtitle)
    lefts = [MARGIN + i * (_SIDE + _GAP) for i in range(3)]
    delta = case.after.astype(np.int16) - case.before
    factor = max(1, round(112 / max(1, int(np.abs(delta).max()))))
    noise = np.clip(128 + factor * delta, 0, 255).astype(np.uint8)
    verdict = "before", f"what was added, {factor} times as strong", "after"
    for left, pixels, caption in zip(lefts, (case.before, noise, case.after), verdict, strict=True):
        sheet.image.paste(_panel(pixels), (left, sheet.top))
        sheet.text(left + _SIDE / 2, sheet.top + _SIDE + 24, caption, GREY, size=_LETTERS, anchor="mm")
    for left, sign in zip(lefts[1:], "+=", strict=True):
        sheet.text(left - _GAP / 2, sheet.top + _SIDE / 2, sign, GREY, size=48, anchor="mm")
    for left, answers in ((lefts[0], case.answers_before), (lefts[2], case.answers_after)):
        _answers(sheet, left, sheet.top + _SIDE + 50, answers)
    _facts(sheet, lefts[1], sheet.top + _SIDE + 50, delta)
    return sheet.image


def _panel(pixels: Images) -> Image.Image:
    """Scale an image to a panel; the pixels of small images stay visible."""
    image = Image.fromarray(pixels)
    small = max(image.size) * 4 <= _SIDE
    return image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)


def _answers(sheet: Sheet, left: int, top: int, answers: list[Classification]) -> None:
    for i, found in enumerate(answers):
        y = top + i * _ROW
        sheet.pen.rectangle((left, y, left + _SIDE, y + _ROW - 6), PALE)
        sheet.pen.rectangle((left, y, left + max(3, round(_SIDE * found.score)), y + _ROW - 6), _light(found.class_id))
        share = f"{100 * found.score:.1f} %"
        sheet.text(left + 10, y + _ROW / 2 - 3, found.label, size=_LETTERS, width=_SIDE - 110)
        sheet.text(left + _SIDE - 10, y + _ROW / 2 - 3, share, size=_LETTERS, anchor="rm")


def _facts(sheet: Sheet, left: int, top: int, delta: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> None:
    changed = f"{(delta != 0).any(axis=-1).mean():.0%}".replace("%", " %")
    lines = [f"{changed} of the pixels changed", f"by {np.abs(delta).mean():.2f} grey levels on average"]
    for i, line in enumerate(lines):
        sheet.text(left + _SIDE / 2, top + i * 30 + 14, line, INK, size=_LETTERS, anchor="mm")


def _light(class_id: int) -> tuple[int, int, int]:
    """Return a class's colour, light enough for dark text on it."""
    red, green, blue = (round(value + (255 - value) * 0.5) for value in colour_of(class_id))
    return red, green, blue
