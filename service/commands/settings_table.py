"""The table of settings that `zooserve serve --help` prints, from their types."""

from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from service.settings import Settings
from zoo.variables import PREFIX

# Units, by the end of a setting's name.
_UNITS = {"ms": " ms", "s": " s", "mb": " MB", "megapixels": " megapixels"}


class Row(NamedTuple):
    """One setting in the table of `--help`: its variable, default, meaning and possible values."""

    name: str
    default: str
    text: str
    choices: str


def table() -> list[Row]:
    """Describe every setting, from its type."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        default, text = field.default, str(field.type.__metadata__[0].description)
        shown = _plain(default) if isinstance(default, float) else str(default).lower()
        rows.append(Row(PREFIX + field.name.upper(), shown, text, _choices(field.name, field.type)))
    return rows


def _choices(name: str, kind: Any) -> str:
    """Describe a setting's values: `cpu | cuda`, `whole number, 1 to 64`, `0.01 to 3600 s`, `text`."""
    info = inspect.type_info(kind)
    if isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.LiteralType):
        return " | ".join(map(str, info.values))
    if isinstance(info, inspect.BoolType):
        return "true | false"
    if isinstance(info, inspect.IntType | inspect.FloatType):
        whole = "whole number, " if isinstance(info, inspect.IntType) else ""
        return f"{whole}{_plain(info.ge)} to {_plain(info.le)}{_UNITS.get(name.rpartition('_')[2], '')}"
    return "text"


def _plain(number: float | None) -> str:
    """Write a bound so that it can be copied: no exponent, no decimals where there are none."""
    return str(number) if number is None or number % 1 else str(int(number))
