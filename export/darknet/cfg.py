"""Reads a Darknet `.cfg`: its sections in order, each option with its line, so that every complaint can name the place.

`export.darknet.network` builds from the sections. An option that could change the answer and is not understood is
refused here; options that only matter in training pass.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zoo.errors import ExportError

_ALIASES = {"conv": "convolutional", "max": "maxpool", "network": "net"}

# What the layers take from each kind of section.
_UNDERSTOOD = {
    "convolutional": {"batch_normalize", "filters", "size", "stride", "pad", "padding", "groups", "activation"},
    "maxpool": {"size", "stride", "padding"},
    "route": {"layers", "groups", "group_id"},
    "shortcut": {"from", "activation"},
    "upsample": {"stride"},
    "yolo": {"mask", "anchors", "num", "classes", "scale_x_y", "new_coords"},
}

# Options of training and of the NMS behind the network.
_TRAINING = {
    "yolo": {
        "beta_nms",
        "cls_normalizer",
        "counters_per_class",
        "delta_normalizer",
        "focal_loss",
        "ignore_thresh",
        "iou_loss",
        "iou_normalizer",
        "iou_thresh",
        "iou_thresh_kind",
        "jitter",
        "label_smooth_eps",
        "max",
        "max_delta",
        "nms_kind",
        "obj_normalizer",
        "objectness_smooth",
        "random",
        "resize",
        "truth_thresh",
    },
}
_TRAINING_ANYWHERE = {"burnin_update", "clip", "learning_rate", "onlyforward", "stopbackward", "train_only_bn"}


class Option(NamedTuple):
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """One `[kind]` of a cfg.

    Attributes:
        path, line: where it starts, for messages.
        kind: without brackets, aliases resolved (`conv` is `convolutional`).
        index: Darknet's layer number, -1 for `[net]`: what `layers=` and `from=` count in.
    """

    path: Path
    line: int
    kind: str
    index: int
    options: dict[str, Option]

    def __str__(self) -> str:
        return f"[{self.kind}] at line {self.line}" + (f" (layer {self.index})" if self.index >= 0 else "")

    def error(self, message: str, key: str | None = None) -> ExportError:
        """An error that names this section, or the line of its option `key`."""
        line = self.options[key].line if key in self.options else self.line
        return ExportError(f"{self.path}, line {line}: [{self.kind}] {message}")

    def text(self, key: str, default: str | None = None) -> str:
        """The option as it stands.

        Raises:
            ExportError: it is missing and has no default.
        """
        if key in self.options:
            return self.options[key].value
        if default is None:
            raise self.error(f"has no `{key}`")
        return default

    def integer(self, key: str, default: int | None = None, minimum: int | None = None) -> int:
        """The option as a whole number of at least `minimum`.

        Raises:
            ExportError: it is no such number, or is missing and has no default.
        """
        (value,) = self.numbers(key, None if default is None else str(default), count=1)
        if not value.is_integer():
            raise self.error(f"`{key}` is {self.text(key)!r}, but must be a whole number", key)
        if minimum is not None and value < minimum:
            raise self.error(f"`{key}` is {int(value)}, but must be at least {minimum}", key)
        return int(value)

    def number(self, key: str, default: float) -> float:
        """The option as a number.

        Raises:
            ExportError: it is none.
        """
        return self.numbers(key, str(default), count=1)[0]

    def integers(self, key: str, default: str | None = None) -> tuple[int, ...]:
        """The option as a comma-separated list of whole numbers.

        Raises:
            ExportError: it is no such list, or is missing and has no default.
        """
        values = self.numbers(key, default)
        if not all(value.is_integer() for value in values):
            raise self.error(f"`{key}` is {self.text(key)!r}, but must be whole numbers, separated by commas", key)
        return tuple(int(value) for value in values)

    def numbers(self, key: str, default: str | None = None, count: int | None = None) -> tuple[float, ...]:
        """The option as a comma-separated list of finite numbers, `count` of them where that is given.

        Raises:
            ExportError: it is no such list, or is missing and has no default.
        """
        text = self.text(key, default).partition("#")[0]  # Darknet reads numbers up to a comment behind them
        expected = "a number" if count == 1 else "numbers, separated by commas"
        try:
            values = tuple(float(part) for part in text.rstrip(",").split(","))
        except ValueError:
            raise self.error(f"`{key}` is {text!r}, but must be {expected}", key) from None
        if count not in (None, len(values)) or not all(map(math.isfinite, values)):
            raise self.error(f"`{key}` is {text!r}, but must be {expected}", key)
        return values


def read_cfg(path: Path) -> tuple[Section, ...]:
    """Read a cfg; the first section is `[net]`, the others are the layers in order.

    Like Darknet's own reader: white space means nothing, `#` and `;` open a comment line, and the first of two
    equal keys in a section counts.

    Raises:
        ExportError: naming the line of what cannot be read, or of a section or option that is not understood.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    sections: list[Section] = []
    for number, line in enumerate(lines, start=1):
        text = "".join(line.split())
        if not text or text[0] in "#;":
            continue
        if text[0] == "[" and text[-1] == "]":
            sections.append(_open_section(path, number, text, index=len(sections) - 1))
            continue
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ExportError(
                f"{path}, line {number}: {line.strip()!r} is neither `[section]`, `key=value` nor a comment"
            )
        if not sections:
            raise ExportError(f"{path}, line {number}: `{key}` stands before the first section")
        sections[-1].options.setdefault(key, Option(value, number))
    if len(sections) < 2:
        raise ExportError(f"{path}: a cfg has a [net] section and layers, but this file has {len(sections)} section(s)")
    for section in sections[1:]:
        _refuse_unknown_options(section)
    return tuple(sections)


def _open_section(path: Path, line: int, text: str, index: int) -> Section:
    section = Section(path, line, _ALIASES.get(text[1:-1], text[1:-1]), index, {})
    if (index < 0) != (section.kind == "net"):
        raise section.error("is out of place: the first section, and no other, is [net]")
    if index >= 0 and section.kind not in _UNDERSTOOD:
        raise section.error(f"is not supported; supported are {', '.join(f'[{name}]' for name in _UNDERSTOOD)}")
    return section


def _refuse_unknown_options(section: Section) -> None:
    """Raise ExportError for the first option that might change the answer in a way that the network does not know."""
    known = _UNDERSTOOD[section.kind] | _TRAINING.get(section.kind, set()) | _TRAINING_ANYWHERE
    for key in section.options:
        if key not in known:
            raise section.error(f"does not know the option `{key}`, and ignoring it might change the answer", key)
