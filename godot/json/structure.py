"""Turns plain JSON objects into instances of attrs classes, and says what is wrong with objects that do not fit.

cattrs does the work, with two converters. The fast one, for every entry, stops at the first fault. The slow one, only
for an object with a fault, collects all faults, so that the answer names every field at once. Types of JSON are taken
as they are: a number is no string, `true` is no integer (cattrs would coerce both).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from difflib import get_close_matches
from heapq import nsmallest
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.preconf.orjson import OrjsonConverter, make_converter

T = TypeVar("T")


class DoesNotFit(ValueError):
    """A value does not fit its class; the text names every field at fault."""


MAX_ITEMS: Final = 10_000
"""Items of an array of arguments; a tool may have a smaller limit."""

MAX_GUESSED_CHARS: Final = 100
"""A longer word is not compared with the known ones, because the time grows with its length."""

MAX_NUMBER: Final = 2**63 - 1
"""A larger number may not fit into the database or into a float."""


class Repeating(dict[str, Any]):
    """An object with repeated keys. The last value of each key counts, as everywhere; `lost` has the others."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        last = {key: at for at, (key, _) in enumerate(pairs)}
        self.lost = [(key, value) for at, (key, value) in enumerate(pairs) if last[key] != at]


_JSON_NAMES: Final = {
    Decimal: "a number",
    bool: "a boolean",
    Repeating: "an object",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "an array",
    str: "a string",
    type(None): "null",
}


def argument(description: str, *, default: Any = attrs.NOTHING, max_chars: int | None = None, **schema: Any) -> Any:
    """Declare one field of an attrs class that clients fill: an argument of a tool, a part of an entry.

    :param description: what it means, its unit, its limits.
    :param max_chars: of a text, and of each text in an array; checked here.
    :param schema: more JSON Schema keywords (`examples`, `minimum`, `maxItems`, …); they inform, and check nothing.
    """
    metadata = {"schema": {"description": description, **schema}}
    if max_chars is None:
        return attrs.field(default=default, metadata=metadata)
    metadata["schema"]["maxLength"] = max_chars

    def check_length(_: object, field: attrs.Attribute[Any], value: object) -> None:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and len(each) > max_chars:
                raise ValueError(f"{field.name}: at most {max_chars:,} characters, not {len(each):,}")

    return attrs.field(default=default, metadata=metadata, validator=check_length)


def json_name(value: object) -> str:
    """Name a value's type as a reader of JSON knows it."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def shown(value: object, chars: int = 80) -> str:
    """Quote a client's value in an error. A long text is cut first, because quoting takes time too."""
    quoted = repr(value[:chars] if isinstance(value, str) else value)
    return quoted[:chars]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` when a known word is near enough, else nothing."""
    if len(word) > MAX_GUESSED_CHARS:
        return ""
    by_lower = {name.lower(): name for name in known}
    head, _, rest = (word := word.lower()).partition("_")
    # A prefix of many names, as GODOT_, does not tell which of them is meant.
    rests = {name: name.removeprefix(f"{head}_") for name in by_lower}
    for near in get_close_matches(word, by_lower, cutoff=0.6):
        if rests[near] == near or get_close_matches(rest, [rests[near]], cutoff=0.6):
            return f"; did you mean {by_lower[near]!r}?"
    return ""


def _exactly(wanted: str, *types: type) -> Callable[[Any, Any], Any]:
    def structure_exactly(value: Any, _: Any) -> Any:
        if type(value) in types:
            return value
        raise TypeError(f"must be {wanted}, not {json_name(value)}")

    return structure_exactly


def _structure_literal(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if value in allowed and type(value) in {type(each) for each in allowed}:
        return value
    names = ", ".join(str(each) for each in allowed)
    hint = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
    said = shown(value) if isinstance(value, str | int | float) else json_name(value)
    raise ValueError(f"must be one of {names}, not {said}{hint}")


def _structure_number(value: Any, _: Any) -> Any:
    if type(value) not in (int, float, Decimal):
        raise TypeError(f"must be a number, not {json_name(value)}")
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(f"must be a number between -{MAX_NUMBER:,} and {MAX_NUMBER:,}")
    return float(value) if type(value) is Decimal else value


def _structure_whole_number(value: Any, _: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"must be a whole number, not {json_name(value)}")
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(f"must be a whole number between -{MAX_NUMBER:,} and {MAX_NUMBER:,}")
    return value


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_object(kind: Any) -> bool:
    return kind is dict or _origin(kind) is dict


def _is_union_of_plain(kind: Any) -> bool:
    """`str | list[str]` and the like: more than one alternative beside None."""
    return get_origin(kind) in (Union, UnionType) and len([a for a in get_args(kind) if a is not type(None)]) > 1


def _converter(*, detailed: bool) -> OrjsonConverter:
    converter = make_converter(detailed_validation=detailed, forbid_extra_keys=True)
    converter.register_structure_hook(str, _exactly("a string", str))
    converter.register_structure_hook(bool, _exactly("true or false", bool))
    converter.register_structure_hook(int, _structure_whole_number)
    converter.register_structure_hook(float, _structure_number)
    converter.register_structure_hook_func(_is_object, _exactly("an object", dict, Repeating))
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _structure_literal)

    def structure_list(value: Any, kind: Any) -> list[Any]:
        if type(value) is not list:
            raise TypeError(f"must be an array, not {json_name(value)}")
        if len(value) > MAX_ITEMS:
            raise ValueError(f"must have at most {MAX_ITEMS:,} items, not {len(value):,}")
        (item,) = get_args(kind)
        return [converter.structure(each, item) for each in value]

    def structure_union(value: Any, kind: Any) -> Any:
        if value is None and type(None) in get_args(kind):
            return None
        for alternative in get_args(kind):
            if alternative is type(None):
                continue
            try:
                return converter.structure(value, alternative)
            except (TypeError, ValueError, cattrs.BaseValidationError):
                continue
        raise TypeError(f"does not take {json_name(value)}")

    converter.register_structure_hook_func(lambda kind: _origin(kind) is list, structure_list)
    converter.register_structure_hook_func(_is_union_of_plain, structure_union)
    return converter


_fast: Final = _converter(detailed=False)
_detailed: Final = _converter(detailed=True)


def structure(value: object, kind: type[T]) -> T:
    """Make an instance of an attrs class out of a JSON object.

    Unknown fields are refused, so that a misspelt one does not vanish. A field whose default is None
    takes an explicit null (deployed clients send them).

    :raises DoesNotFit: naming every field that is missing, unknown or of the wrong type.
    """
    try:
        if type(value) is not dict:
            raise TypeError  # a `Repeating` too
        return _fast.structure(value, kind)
    except (
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
        cattrs.BaseValidationError,
        cattrs.ForbiddenExtraKeysError,
    ):
        raise DoesNotFit(_wording(value, kind)) from None


def _wording(value: object, kind: type[Any]) -> str:
    if isinstance(value, Repeating):
        return f"{shown(value.lost[0][0])}: given more than once"
    if type(value) is not dict:
        return f"must be an object, not {json_name(value)}"
    known = [field.name for field in kind.__attrs_attrs__]

    def format_fault(fault: BaseException, _: type | None) -> str:
        match fault:
            case KeyError():
                return "required, but missing"
            case AttributeError():  # a nested class: cattrs takes its keys without a check
                return "must be an object"
            case cattrs.ForbiddenExtraKeysError():
                extras = nsmallest(5, fault.extra_fields)
                others = len(fault.extra_fields) - len(extras)
                words = [f"unknown field {shown(extra)}{did_you_mean(extra, known)}" for extra in extras]
                words += [f"and {others} more"] if others else []
                return f"{'; '.join(words)} (known: {', '.join(known)})"
            case _:
                return str(fault)

    try:
        _detailed.structure(value, kind)
    except cattrs.BaseValidationError as exc:
        faults = cattrs.transform_error(exc, path="", format_exception=format_fault)
        return "; ".join(_field_first(fault) for fault in faults)
    raise AssertionError(f"the two converters disagree about {kind.__name__}")


def _field_first(fault: str) -> str:
    """`must be a string @ .component` reads `component: must be a string`."""
    text, separator, path = fault.rpartition(" @ ")
    path = path.lstrip(".")
    return f"{path}: {text}" if separator and path else text or fault
