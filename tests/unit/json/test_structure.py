"""Plain JSON objects become attrs classes, or an error that names every field at fault."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godot.json.structure import DoesNotFit, argument, did_you_mean, json_name, structure


@attrs.frozen
class Point:
    x: float = argument("across")
    y: float = argument("up", default=0.0)


@attrs.frozen
class Sample:
    """One field of each type that tools use."""

    name: str = argument("text")
    count: int = argument("whole", default=1)
    ratio: float = argument("part", default=0.5)
    deep: bool = argument("or not", default=False)
    data: dict[str, Any] | None = argument("anything", default=None)
    order: Literal["newest", "oldest"] = argument("which first", default="newest")
    tags: list[str] = argument("words", default=attrs.Factory(list))
    one_or_more: str | list[str] | None = argument("either", default=None)
    anything: Any = argument("whatever", default=None)
    point: Point | None = argument("nested", default=None)


anything_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fault(**fields: object) -> str:
    with pytest.raises(DoesNotFit) as refused:
        structure({"name": "n", **fields}, Sample)
    return str(refused.value)


def test_fills_the_fields_and_their_defaults() -> None:
    given_fields = {
        "name": "n",
        "count": 2**62,
        "ratio": 2,
        "deep": True,
        "data": {"a": [None]},
        "order": "oldest",
        "tags": ["a", "b"],
        "one_or_more": ["c"],
        "anything": [1],
        "point": {"x": 1.5},
    }
    expected = Sample("n", 2**62, 2, True, {"a": [None]}, "oldest", ["a", "b"], ["c"], [1], Point(1.5))
    assert structure(given_fields, Sample) == expected
    assert structure({"name": "n"}, Sample) == Sample("n")


def test_a_field_whose_default_is_null_takes_an_explicit_null() -> None:
    """GOD-000: deployed clients send them."""
    assert structure({"name": "n", "data": None, "one_or_more": None, "point": None}, Sample) == Sample("n")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", 1, "name: must be a string, not a number"),
        ("name", None, "name: must be a string, not null"),
        ("count", "1", "count: must be a whole number, not a string"),
        ("count", 1.0, "count: must be a whole number, not a number"),
        (
            "count",
            2**63,
            "count: must be a whole number between -9,223,372,036,854,775,807 and 9,223,372,036,854,775,807",
        ),
        ("count", True, "count: must be a whole number, not a boolean"),
        ("ratio", "0.5", "ratio: must be a number, not a string"),
        ("ratio", True, "ratio: must be a number, not a boolean"),
        ("deep", 1, "deep: must be true or false, not a number"),
        ("deep", "true", "deep: must be true or false, not a string"),
        ("data", [], "data: must be an object, not an array"),
        ("order", "newst", "order: must be one of newest, oldest, not 'newst'; did you mean 'newest'?"),
        ("order", 1, "order: must be one of newest, oldest, not 1"),
        ("order", ["newest"], "order: must be one of newest, oldest, not an array"),
        ("tags", "a", "tags: must be an array, not a string"),
        ("one_or_more", 3, "one_or_more: does not take a number"),
        ("one_or_more", [3], "one_or_more: does not take an array"),
        ("point", {"x": "a"}, "point.x: must be a number, not a string"),
        ("point", {}, "point.x: required, but missing"),
    ],
)
def test_json_types_are_taken_as_they_are(field: str, value: object, expected: str) -> None:
    assert fault(**{field: value}) == expected


def test_a_misspelt_field_does_not_vanish() -> None:
    text = fault(cuont=3)
    assert text.startswith("unknown field 'cuont'; did you mean 'count'? (known: name, count, ")


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(DoesNotFit) as refused:
        structure({"count": "x", "deep": 1}, Sample)
    assert str(refused.value) == (
        "name: required, but missing; count: must be a whole number, not a string; "
        "deep: must be true or false, not a number"
    )


def test_a_field_name_with_an_at_sign_does_not_confuse_the_wording() -> None:
    assert fault(**{"a @ b": 1}).startswith("unknown field 'a @ b' (known: ")


def test_ten_times_as_many_unknown_fields_do_not_take_a_hundred_times_as_long_nor_more_words() -> None:
    def refuse(count: int) -> float:
        fields = {f"field{number}": number for number in range(count)}
        started = time.process_time()
        text = fault(**fields)
        took = time.process_time() - started
        assert len(text) < 2000
        assert "more" in text
        return took

    few, many = (min(refuse(count) for _ in range(3)) for count in (10_000, 100_000))
    assert many < 50 * few, "ten times as long, and more since the caches hold less of it; a hundred times if quadratic"


def test_a_deeply_nested_value_in_the_wrong_place_is_refused_like_any_other() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert fault(order=deep).startswith("order: must be one of newest, oldest, not ")


@given(
    anything_json | st.fixed_dictionaries({"name": st.text()}, optional=dict.fromkeys(["count", "tags"], anything_json))
)
def test_any_json_fits_or_is_refused_and_nothing_else(value: Any) -> None:
    with suppress(DoesNotFit):
        structure(value, Sample)


@given(
    st.sampled_from(["name", "count", "ratio", "deep", "data", "order", "tags", "one_or_more", "anything", "point"]),
    anything_json,
)
def test_any_value_in_any_field_fits_or_is_refused_by_the_name_of_the_field(field: str, value: Any) -> None:
    reason = field
    try:
        structure({"name": "n", field: value}, Sample)
    except DoesNotFit as exc:
        reason = str(exc)
    assert field in reason


@pytest.mark.parametrize(
    ("word", "hint"),
    [("wran", "; did you mean 'WARN'?"), ("Inf", "; did you mean 'INFO'?"), ("zzz", ""), ("", "")],
)
def test_a_hint_is_given_only_when_a_known_word_is_near(word: str, hint: str) -> None:
    assert did_you_mean(word, ["ERROR", "WARN", "INFO"]) == hint


@pytest.mark.parametrize(
    ("value", "name"),
    [({}, "an object"), ([], "an array"), ("", "a string"), (1, "a number"), (1.5, "a number"), (None, "null")],
)
def test_types_are_named_as_a_reader_of_json_knows_them(value: object, name: str) -> None:
    assert json_name(value) == name
