"""Bytes and frames into lines."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from godot.connect.lines import LineCutter, one_line


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 50))
def test_bytes_are_cut_into_the_same_lines_whatever_the_pieces(lines: list[bytes], size: int) -> None:
    data = b"\n".join(lines)
    cutter = LineCutter()
    cut = [line for at in range(0, len(data), size) for line in cutter.feed(data[at : at + size])] + cutter.close()
    assert cut == (lines[:-1] if lines and not lines[-1] else lines)


def test_of_a_line_that_is_too_long_nothing_is_held() -> None:
    lines = LineCutter(longest=10)
    assert lines.feed(b"0123456789\n01234567") == [b"0123456789"]
    assert lines.feed(b"890") == []
    assert lines._parts == []
    assert lines.feed(b"1\nnext\n") == [None, b"next"]
    lines.feed(b"01234567890")
    assert lines.close() == [None]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.sampled_from([None, 0, 2, "\n", "\r\n\t"]), st.booleans())
def test_any_json_becomes_one_line_of_the_same_meaning(
    value: object, indent: int | str | None, ascii_only: bool
) -> None:
    line = one_line(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line) == value
