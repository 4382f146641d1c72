"""A model card as TOML, the way a person would write it: defaults are left out. Called by `export.importer.adding`."""

import json
from typing import Any

import msgspec
from msgspec import Struct

from zoo.model_card import AnyCard


def to_toml(card: AnyCard, comments: list[str]) -> str:
    """Write a card that `zoo.model_card.read_model_card` reads as the same again.

    Args:
        card: with finite numbers, and sources and labels as they are to be written.
        comments: lines that go on top.
    """
    tables = _given(card)
    lines = [f"# {comment}" for comment in comments]
    lines += [
        f"{key} = {_value(value)}"
        for key, value in tables.items()
        if key not in {"recipe", "normalise", "nms", "evaluation", "sources"}
    ]
    for key in ("recipe", "normalise", "nms", "evaluation"):
        if fields := tables.get(key):
            lines += ["", f"[{key}]", *(f"{name} = {_value(value)}" for name, value in fields.items())]
    for key, fields in tables["sources"].items():
        lines += ["", f"[sources.{key}]", *(f"{name} = {_value(value)}" for name, value in fields.items())]
    return "\n".join(lines) + "\n"


def _given(struct: Struct) -> dict[str, Any]:
    """Return the fields that differ from their defaults, structs within as dicts."""
    fields = {
        field.name: (getattr(struct, field.encode_name), field.default) for field in msgspec.structs.fields(struct)
    }
    return {
        name: _plain(value) for name, (value, default) in fields.items() if value != default and value not in ({}, ())
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return _given(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _value(value: Any) -> str:
    """TOML's strings, numbers, booleans and arrays are written as JSON's; its inline tables are not."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
