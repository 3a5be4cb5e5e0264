"""Full-text search: words and what is typed into a search box."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dewey_logs.search import Search, Term, words
from godot.errors import EntryRejected


def test_punctuation_inside_a_word_makes_it_a_phrase() -> None:
    assert Search.parse("tools/call -server.js error") == Search(
        ((Term(("tools", "call")), Term(("server", "js"), negated=True), Term(("error",))),)
    )


def test_a_search_box_is_understood() -> None:
    search = Search.parse('"No such tool" OR timeout -"by marco" or')
    assert search.websearch() == '"no such tool" or "timeout" -"by marco"'


@given(st.text(max_size=40))
def test_any_text_is_a_search_or_names_the_argument(text: str) -> None:
    try:
        worded = Search.parse(text).websearch()
    except EntryRejected as exc:
        assert str(exc).startswith("search: ")  # noqa: PT017 - both outcomes are fine
    else:
        assert "\x00" not in worded
        worded.encode()


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("Tools/call: server.js <b>naïve</b> a_b-5") == [
        "tools", "call", "server", "js", "b", "naïve", "b", "a", "b", "5",
    ]  # fmt: skip
