"""Filters without a database: they mean what they mean there, and nobody can make one that takes for ever."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_logs.filters import Components
from dewey_logs.query import MAX_WANTED, Query
from dewey_logs.search import Search
from dewey_logs.store.matching import TooMuch, Work, answers
from godot.entries.entry import admit_json
from godot.errors import EntryRejected
from godot.json.text import dumps


def fits(query: Query, work: Work, data: Any = None, component: str = "relay", message: str = "hello") -> bool:
    entry = admit_json({"component": component, "level": "INFO", "message": message}, [])
    return answers(query, entry, message.split, lambda: data, work)


@given(
    st.text("ab*", min_size=1, max_size=8).filter(lambda text: "*" in text),
    st.text("ab", max_size=10),
)
def test_a_pattern_means_what_the_regular_expression_would(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
    assert Components.parse(pattern).match(name) is expected


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 14 + "*b", "a" * 60),
        ("*a" * 100 + "*b", "a" * 255),
        ("a*" * 127, "a" * 126 + "b" + "a" * 128 + "c"),
        ("*" * 255, "a" * 255),
        ("*ab" * 80 + "*c", "ab" * 127),
    ],
)
def test_no_pattern_takes_longer_than_a_plain_one_by_much(pattern: str, name: str) -> None:
    """A regular expression made of the first pair ran for hours, and nobody else was answered."""

    def took(components: Components) -> float:
        began = time.perf_counter()
        for _ in range(200):
            components.match(name)
        return time.perf_counter() - began

    plain = min(took(Components.parse("*z*")) for _ in range(3))
    assert min(took(Components.parse(pattern)) for _ in range(3)) < 1_000 * plain


JSON = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 2, "", "1", "a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=12,
)


def holds(value: Any, wanted: Any) -> bool:
    """As PostgreSQL's manual says it, without a thought of time."""
    match value, wanted:
        case dict(), dict():
            return all(key in value and holds(value[key], each) for key, each in wanted.items())
        case list(), list():
            return all(any(holds(each, one) for each in value) for one in wanted)
        case (dict() | list(), _) | (_, dict() | list()):
            return False
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)


@given(st.dictionaries(st.sampled_from("ab"), JSON), st.dictionaries(st.sampled_from("ab"), JSON, max_size=2))
def test_data_holds_other_data_as_jsonb_does(value: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert fits(Query(data=wanted), Work(), value) is holds(value, wanted)


def nested(depth: int, *inner: Any) -> Any:
    value: Any = list(inner)
    for _ in range(depth):
        value = [value, *inner]
    return value


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"a": list(range(60_000))}, {"a": list(range(30_000))}),
        ({"a": [[each] for each in range(5_000)]}, {"a": [[-each] for each in range(1, 400)]}),
        ({"a": [{"x": each, "y": 0} for each in range(5_000)]}, {"a": [{"y": 0, "x": -1}] * 400}),
        ({"a": [nested(20, 1) for _ in range(300)]}, {"a": [nested(20, 2)]}),
    ],
)
def test_what_takes_too_long_to_compare_is_noticed_before_it_has_taken_long(
    data: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """A list in a list once took minutes."""
    work = Work(20_000)
    with pytest.raises(TooMuch):
        fits(Query(data=wanted), work, data)
    assert work.values < 0


def test_a_text_that_is_too_long_is_not_read() -> None:
    with pytest.raises(TooMuch):
        fits(Query(contains="x"), Work(chars=100), message="a" * 101)
    assert not fits(Query(contains="x", component=Components.parse("other")), Work(chars=100), message="a" * 101)


@given(st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=8), st.sampled_from(["a", '"a b"', "-c", '"ab c"']))
def test_a_phrase_is_found_where_its_words_stand_one_beside_the_other(words: list[str], asked: str) -> None:
    term = Search.parse(asked).alternatives[0][0]
    size = len(term.words)
    found = any(tuple(words[at : at + size]) == term.words for at in range(len(words) - size + 1))
    assert fits(Query.parse(search=asked), Work(), message=" ".join(words) or "-") is (found is not term.negated)


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"component": "a" * 256}, "component: at most 255 characters, not 256"),
        ({"component": ["a", "*" * 15_000_000]}, "component: at most 255 characters, not 15,000,000"),
        ({"search": "a " * 1_000}, "search: at most 1,000 characters, not 2,000"),
        ({"contains": "a" * 10_001}, "contains: at most 10,000 characters, not 10,001"),
        ({"data_path": "$" + ".**" * 5_000}, "data_path: at most 10,000 characters, not 15,001"),
        ({"data": {"a": list(range(30_000))}}, "data: at most 1,000 values in a filter, not 30,002"),
        ({"data": {"a": [{"b": [1]}] * 400}}, "data: at most 1,000 values in a filter, not 1,202"),
        ({"cursor": "A" * 201}, "cursor: must be the next_cursor"),
    ],
)
def test_a_filter_that_is_too_large_is_refused_with_the_limit(asked: dict[str, Any], refusal: str) -> None:
    with pytest.raises(EntryRejected) as refused:
        Query.parse(**asked)
    assert str(refused.value).startswith(refusal)


def test_the_largest_filter_is_taken() -> None:
    data = {"a": list(range(MAX_WANTED - 2))}
    assert Query.parse(component=["*" * 255] * 100, search="a " * 500, contains="a" * 10_000, data=data).data == data
    assert dumps(data)
