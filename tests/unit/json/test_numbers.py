"""Which texts take the slow and exact way for their numbers, and which need not."""

from __future__ import annotations

import pytest

from godot.json.numbers import is_delicate, large_exponents


@pytest.mark.parametrize(
    "raw",
    [
        b"1e-400",
        b"[1e-400]",
        b'{"a":-1.5e-400}',
        b'{"a": 1E-400}',
        b'{"a":\n1e-400}',
        b'{"id":"0af7651e-123e-433e-844e-211c80319c3e","a":1e-400}',
        b'{"a":1,"b":0.00000000001e-400}',
        b'{"a":12345678901234567890}',
        b'{"a":0.12345678901234567}',
    ],
)
def test_a_number_that_64_bits_may_not_hold_is_seen(raw: bytes) -> None:
    assert is_delicate(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1e-12,"b":1.25,"c":"2026-11-20T08:30:00.123456Z"}',
        b'{"id":"0af7651e-123e-433e-844e-211c80319c3e","trace_id":"1e-412f3e-844e-211c-80319c3e0000"}',
    ],
)
def test_a_uuid_that_looks_like_a_tiny_number_does_not_cost_a_message_the_fast_way(raw: bytes) -> None:
    """A batch has one in it nearly always."""
    assert not is_delicate(raw)


def test_large_exponents_are_found_where_numbers_stand() -> None:
    raw = b'{"id":"0af7651e1234","a":1e308,"b":-2.5E+10,"c":3e-99,"d":1e5}'
    assert [raw[at : at + 4] for at in large_exponents(raw)] == [b"e308", b"E+10", b"e-99"]
