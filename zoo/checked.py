"""Structs that are checked when they are made in code, as they are when they are read from a file."""

import functools
from typing import Any

import msgspec
from msgspec import Struct

from zoo.errors import CardError


class FieldError(CardError, ValueError):
    """A struct that was made with a field that it cannot have."""


class Checked(Struct, frozen=True):
    """Base of the structs of cards. A subclass with a `__post_init__` of its own calls this one first."""

    def __post_init__(self) -> None:
        """Check every field against its type.

        Raises:
            FieldError: naming the field, its value and what is expected.
        """
        for name, kind in _fields(type(self)):
            value = getattr(self, name)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                raise FieldError(f"{type(self).__name__}: {error} - `{name}` is {value!r:.200}") from error


@functools.cache
def _fields(kind: type[Checked]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(kind))
