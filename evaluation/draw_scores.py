"""Draws a judge's scores: a confusion matrix, the most confused pairs of many classes, or bars per class."""

from collections import Counter
from collections.abc import Sequence

from PIL import Image

from evaluation.dataset import ClassScore, Confusion, Scores
from evaluation.sheet import GREY, INK, MARGIN, PALE, RIGHT, WHITE, WRONG, Sheet, blend, length

_MATRIX = 32  # the most classes of a matrix
_ROWS = 24  # of a list
_COUNTED = 100_000  # if a class has this many or more, cells show shares instead of counts
_LETTERS = 18


def draw_scores(scores: Scores, title: str) -> Image.Image:
    """Draw a matrix for at most 32 classes, else the most confused pairs; without confusions, bars per class."""
    subtitle = ",  ".join(f"{one.name} {one.value:.2%}".replace("%", " %") for one in scores.measures[:3])
    labels = [one.label for one in scores.per_class]
    if not scores.confusions:
        return _bars(scores.per_class, title, f"{subtitle}.  {scores.per_class_measure} per class")
    if len(labels) <= _MATRIX:
        return _matrix(scores.confusions, labels, title, subtitle)
    return _pairs(scores.confusions, title, subtitle)


def _matrix(confusions: Sequence[Confusion], labels: list[str], title: str, subtitle: str) -> Image.Image:
    """Rows are the truth, columns the answers. Blue is correct, red wrong, darker for larger shares of a row."""
    counts = {(one.truth, one.answer): one.count for one in confusions}
    answers = labels + sorted({one.answer for one in confusions} - set(labels))[: _MATRIX - len(labels)]
    rows: Counter[str] = Counter()
    for one in confusions:
        rows[one.truth] += one.count
    cell = max(34, min(64, 1100 // len(answers)))
    letters = max(11, round(cell * 0.3))
    gutter = round(min(240, max(length(label, _LETTERS) for label in answers)))
    left = MARGIN + gutter + 30 + 14
    side, height = cell * len(answers), cell * len(labels)
    share_of = {pair: count / rows[pair[0]] for pair, count in counts.items()}
    worst = max((share for (truth, answer), share in share_of.items() if truth != answer), default=1.0)
    counted = max(rows.values()) < _COUNTED
    foot = 56 + (gutter if gutter > cell else _LETTERS)
    width = max(left + side + 110, 640)
    sheet = Sheet(width, height + foot + 46, title, subtitle)
    top = sheet.top + 30
    sheet.text(left + side + 16, sheet.top + 8, "right", GREY, size=_LETTERS)
    sheet.upright(MARGIN + 8, top + height // 2 - 20, "truth", GREY, size=_LETTERS)
    for row, truth in enumerate(labels):
        y = top + row * cell
        sheet.text(left - 14, y + cell / 2, truth, size=_LETTERS, width=gutter, anchor="rm")
        for column, answer in enumerate(answers):
            x = left + column * cell
            share = share_of.get((truth, answer), 0.0)
            right = truth == answer
            depth = share if right else 0.12 + 0.88 * (share / worst) ** 0.5
            fill = blend(RIGHT if right else WRONG, depth) if share else PALE
            sheet.pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill)
            if share and (counted or share >= 0.005):
                text = f"{counts[truth, answer]:,}" if counted else f"{100 * share:.0f}"
                ink = WHITE if depth > 0.55 else INK
                sheet.text(x + cell / 2 - 1, y + cell / 2 - 1, text, ink, size=letters, width=cell, anchor="mm")
        accuracy = f"{share_of.get((truth, truth), 0.0):.1%}".replace("%", " %")
        sheet.text(left + side + 16, y + cell / 2, accuracy, size=_LETTERS)
    for column, answer in enumerate(answers):
        x = left + column * cell + cell // 2 - 1
        if gutter > cell:
            sheet.upright(x, top + height + 12, answer, size=_LETTERS, width=gutter)
        else:
            sheet.text(x, top + height + 12, answer, size=_LETTERS, anchor="mt")
    caption = "answer" if counted else "answer (per cent of the truth's pixels)"
    sheet.text(left + side / 2, sheet.image.height - 40, caption, GREY, size=_LETTERS, anchor="mm")
    return sheet.image


def _pairs(confusions: Sequence[Confusion], title: str, subtitle: str) -> Image.Image:
    wrong = sorted((one for one in confusions if one.truth != one.answer), key=lambda one: -one.count)[:_ROWS]
    row, letters, bar = 34, _LETTERS, 320
    longest = max((length(name, letters) for one in wrong for name in (one.truth, one.answer)), default=0.0)
    names = round(min(300, max(160, longest + 8)))
    sheet = Sheet(2 * names + bar + 2 * MARGIN + 130, row * (len(wrong) + 2), title, f"{subtitle}.  Most confused:")
    left, middle = MARGIN, MARGIN + names + 50
    bars = middle + names + 20
    sheet.text(left + names, sheet.top + row / 2, "truth", GREY, size=letters, anchor="rm")
    sheet.text(middle, sheet.top + row / 2, "answer", GREY, size=letters)
    if not wrong:
        sheet.text(left, sheet.top + 1.5 * row, "nothing was confused", size=letters)
    for i, one in enumerate(wrong, start=1):
        y = sheet.top + row * i + row // 2
        sheet.text(left + names, y, one.truth, size=letters, width=names, anchor="rm")
        _arrow(sheet, left + names + 14, y)
        sheet.text(middle, y, one.answer, WRONG, size=letters, width=names)
        end = bars + max(4, round(bar * one.count / wrong[0].count))
        sheet.pen.rectangle((bars, y - 11, end, y + 11), WRONG)
        sheet.text(end + 8, y, f"{one.count:,}", size=letters)
    return sheet.image


def _bars(per_class: Sequence[ClassScore], title: str, subtitle: str) -> Image.Image:
    """Draw one bar per class, the best first; for many classes, only the best and the worst."""
    ranked = sorted(per_class, key=lambda one: -one.value)
    if len(ranked) > 2 * _ROWS:
        subtitle += f", the best {_ROWS} and the worst {_ROWS} of {len(ranked)}"
        ranked = [*ranked[:_ROWS], *ranked[-_ROWS:]]
    row, names, bar = 26, 260, 560
    sheet = Sheet(names + bar + 2 * MARGIN + 130, row * (len(ranked) + 1) + MARGIN, title, subtitle)
    left = MARGIN + names + 14
    for i, one in enumerate(ranked):
        y = sheet.top + row * i + row // 2
        sheet.text(left - 14, y, one.label, size=_LETTERS, width=names, anchor="rm")
        sheet.pen.rectangle((left, y - 9, left + bar, y + 9), PALE)
        sheet.pen.rectangle((left, y - 9, left + max(2, round(bar * one.value)), y + 9), RIGHT)
        sheet.text(left + bar + 12, y, f"{one.value:.1%}".replace("%", " %"), size=_LETTERS)
    return sheet.image


def _arrow(sheet: Sheet, x: int, y: int) -> None:
    sheet.pen.line((x, y, x + 18, y), GREY, 2)
    sheet.pen.polygon([(x + 24, y), (x + 16, y - 5), (x + 16, y + 5)], GREY)
