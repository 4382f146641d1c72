"""JSON Schema (2020-12) of our types, each under its name as in OpenAPI. `http.docs.openapi` calls this.

msgspec's own generator refuses unions whose members it could not distinguish when decoding. Ours are only encoded.
"""

import inspect
from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

Schema = dict[str, Any]
_REF = "#/components/schemas/"


class Schemas:
    """Makes schemas, and collects those of all structs that they refer to.

    Attributes:
        components: by name, for `#/components/schemas`.
    """

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, kind: object) -> Schema:
        """Return the schema of a type; of a struct, a reference to it."""
        if inspect.isclass(kind) and issubclass(kind, Struct):
            if kind.__name__ not in self.components:
                self.components[kind.__name__] = {}  # ends the recursion of a struct that contains itself
                self.components[kind.__name__] = self._struct(kind)
            return {"$ref": _REF + kind.__name__}
        if inspect.isclass(kind) and issubclass(kind, Enum):
            return {"type": "string", "enum": [member.value for member in kind]}
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in {Union, UnionType}:
            return {"anyOf": [self.of(each) for each in arguments]}
        if origin is list or (origin is tuple and arguments[1:] == (...,)):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is tuple:
            items = [self.of(each) for each in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if origin is Annotated and get_origin(arguments[0]) in {list, tuple, dict, Union, UnionType}:
            return self.of(arguments[0])
        return msgspec.json.schema(kind)

    def _struct(self, kind: type[Struct]) -> Schema:
        hints: Mapping[str, Any] = get_type_hints(kind, include_extras=True)
        fields = msgspec.structs.fields(kind)
        omits = kind.__struct_config__.omit_defaults
        return {
            "type": "object",
            "description": inspect.getdoc(kind) or "",
            "properties": {field.encode_name: self.of(hints[field.name]) for field in fields},
            "required": [field.encode_name for field in fields if field.required or not omits],
        }
