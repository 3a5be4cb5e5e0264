"""The JSON Schema (2020-12) of an attrs class whose fields are made with `argument`."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs


def object_schema(kind: type[Any]) -> dict[str, Any]:
    """Derive the JSON Schema (2020-12) of an attrs class."""
    hints = get_type_hints(kind)
    properties: dict[str, Any] = {}
    required = []
    for field in attrs.fields(kind):
        schema = {**type_schema(hints[field.name]), **field.metadata.get("schema", {})}
        if field.default is attrs.NOTHING:
            required.append(field.name)
        elif field.default is not None:
            schema["default"] = field.default
        properties[field.name] = schema
    listed = {"required": required} if required else {}
    return {"type": "object", "properties": properties, **listed, "additionalProperties": False}


_SCALARS: Final[Mapping[Any, dict[str, Any]]] = {
    Any: {},
    bool: {"type": "boolean"},
    float: {"type": "number"},
    int: {"type": "integer"},
    str: {"type": "string"},
    type(None): {"type": "null"},
}


def type_schema(hint: Any) -> dict[str, Any]:
    """Derive the JSON Schema of one type annotation."""
    if hint in _SCALARS:
        return dict(_SCALARS[hint])
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(args)}
    if origin is dict:
        return {"type": "object"}
    if origin is list:
        return {"type": "array", "items": type_schema(args[0])}
    if origin in (Union, UnionType):
        schemas = [type_schema(each) for each in args]
        if all(set(schema) == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}
    if attrs.has(hint):
        return object_schema(hint)
    raise TypeError(f"no JSON Schema for {hint!r}")
