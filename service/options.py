"""Converts the text values of a query string to a task's typed options. Errors name the option and its range."""

import functools
import re
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct, inspect

from service.errors import Reason, RequestError

_NUMBER = re.compile(
    r"(?P<sign>[ +-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<exponent>(?:[eE][+-]?[0-9]+)?)", re.ASCII
)
OptionsT = TypeVar("OptionsT", bound=Struct)


def parse_options(kind: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """Convert options given as text or as JSON values to a task's `Options`.

    Raises:
        RequestError: `bad_option`; the message has the option, the value and the expected values. NaN is out of range.
    """
    fields = _fields(kind)
    converted: dict[str, Any] = {}
    for name, value in given.items():
        if value is None and name in _left_out(kind):
            continue  # as BentoML's clients send an option that is left out
        if name not in fields:
            known = ", ".join(f"`{known}`" for known in fields)
            raise RequestError(Reason.BAD_OPTION, f"There is no option `{name[:80]}` here. The options are {known}.")
        try:
            converted[name] = from_text(value, fields[name])
        except msgspec.ValidationError:
            raise RequestError(
                Reason.BAD_OPTION, f"`{name}={str(value)[:80]}`: expected {expected(fields[name])}."
            ) from None
    return msgspec.convert(converted, kind)


def from_text(value: Any, kind: Any) -> Any:
    """Convert a text or a JSON value to an annotated type. Numbers may also be written `.5`, `1.` and `+1`.

    A plus sign in a query arrives as a space.

    Raises:
        msgspec.ValidationError: the value is not of the type, or out of its range.
    """
    if isinstance(value, str) and _is_number(kind):
        number = _NUMBER.fullmatch(value)
        if number and (number["whole"] or number["fraction"]):
            fraction = f".{number['fraction']}" if number["fraction"] else ""
            sign = number["sign"].replace("+", "").strip()
            value = f"{sign}{number['whole'] or '0'}{fraction}{number['exponent']}"
    return msgspec.convert(value, kind, strict=False)


@functools.cache
def _is_number(kind: Any) -> bool:
    return isinstance(_bare(inspect.type_info(kind)), inspect.IntType | inspect.FloatType)


def _bare(info: inspect.Type) -> inspect.Type:
    return info.type if isinstance(info, inspect.Metadata) else info


@functools.cache
def _fields(kind: type[Struct]) -> Mapping[str, Any]:
    return {field.encode_name: given_type(field.type) for field in msgspec.structs.fields(kind)}


@functools.cache
def _left_out(kind: type[Struct]) -> frozenset[str]:
    """The options that may be None."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if field.default is None)


def given_type(kind: Any) -> Any:
    """Return the type of an option that is given: `T` of `T | None`, where None stands for the card's value."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return next(one for one in get_args(kind) if one is not types.NoneType)
    return kind


def expected(kind: Any) -> str:
    """Describe which values an annotated type takes ("a whole number from 1 to 1000")."""
    return _description(inspect.type_info(kind))


def _description(info: inspect.Type) -> str:
    if isinstance(info, inspect.Metadata) and info.extra and "expected" in info.extra:
        return str(info.extra["expected"])
    info = _bare(info)
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(f"`{value}`" for value in info.values)
    if isinstance(info, inspect.BoolType):
        return "`true` or `false`"
    if isinstance(info, inspect.IntType):
        return f"a whole number from {info.ge} to {info.le}"
    if isinstance(info, inspect.FloatType):
        return f"a number from {info.ge:g} to {info.le:g}"
    return "text"
