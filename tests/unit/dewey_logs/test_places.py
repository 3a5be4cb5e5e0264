"""Places and cursors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dewey_logs.places import Cursor
from godot.errors import EntryRejected

TRACE = "0193a1b2-7c3d-4e4f-8a9b-0123456789ab"


def test_a_cursor_keeps_microseconds() -> None:
    cursor = Cursor("2026-11-20T08:30:00.123456Z", TRACE)
    assert Cursor.decode(cursor.encode()) == cursor


@given(st.text(max_size=60))
def test_any_text_as_a_cursor_is_refused_or_ours(text: str) -> None:
    try:
        Cursor.decode(text)
    except EntryRejected as exc:
        assert str(exc).startswith("cursor: ")  # noqa: PT017 - both outcomes are fine
