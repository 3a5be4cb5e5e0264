"""JSON in and out: what a client said is what travels, or the reply says what was changed."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godot.entries.entry import NUL_SHOWN, SURROGATE_SHOWN, Entry, admit_json
from godot.entries.wire import KEPT_REPEATS, encode_entry, is_ours
from godot.errors import EntryRejected
from godot.json.text import NotJSON, TooManyValues, dumps, loads, loads_as_said

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x00\ud800\udfff\\u0"))
anything_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**64, 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
    max_leaves=15,
)


def entry(message: str = "m", data: dict[str, Any] | None = None, component: str = "c") -> Entry:
    return Entry(
        id="01a1fb67-5bd0-716c-b208-6b6eb13e7800",
        trace_id=None,
        component=component,
        level="INFO",
        message=message,
        data=data,
        created_at="2026-11-20T08:30:00.000000Z",
    )


def travelled(before: Entry) -> tuple[dict[str, Any], list[str]]:
    """Return an entry as it is read again after its journey, and the warnings at its start."""
    warnings: list[str] = []
    raw = encode_entry(before, warnings)
    return loads(raw), warnings


def storable(value: Any) -> Any:
    """Return what PostgreSQL can hold of a value."""
    match value:
        case str():
            return UNSTORABLE.sub(lambda found: NUL_SHOWN if found[0] == "\x00" else SURROGATE_SHOWN, value)
        case dict():
            return {storable(key): storable(each) for key, each in value.items()}
        case list():
            return [storable(each) for each in value]
    return value


# loads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,2.5,null,true,"ü"]}', {"a": [1, 2.5, None, True, "ü"]}),
        (b'  {"a": {}}\n', {"a": {}}),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("-123456789012345678901234567890", -123456789012345678901234567890),
        ('{"deep":[{"n":99999999999999999999}]}', {"deep": [{"n": 99999999999999999999}]}),
        ('"12345678901234567890123"', "12345678901234567890123"),
        ("0.12345678901234567890123", Decimal("0.12345678901234567890123")),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\ud83d"', "\ud83d"),
    ],
)
def test_reads_what_is_json(text: str | bytes, value: object) -> None:
    assert loads(text) == value
    assert type(loads(text)) is type(value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", '{"a":[NaN]}', '{"a":1e999}'])
def test_refuses_numbers_that_are_none(number: str) -> None:
    with pytest.raises(NotJSON, match=r"is not JSON|is too large"):
        loads(number)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "expecting value at character 1"),
        ("{", "at character 2"),
        ('{"a":1,}', "at character"),
        ("{'a':1}", "at character 2"),
        ("[1]\n[2]", "at character 1 of line 2"),
        ('"\x00"', "invalid control character at character 2"),
        (b'"\xff"', "not JSON: no UTF-8 at byte 2"),
        (b'"\xed\xa0\x80"', "no UTF-8 at byte 2"),
        ('"\ud800"', "no UTF-8 at byte 2"),
        ("\ufeff{}", "BOM"),
        ("9" * 5000, "an integer of 5000 digits is too large"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_says_where_a_text_that_is_not_json_breaks_off(text: str | bytes, where: str) -> None:
    with pytest.raises(NotJSON, match=re.escape(where)):
        loads(text)


@given(st.binary() | st.text(st.characters(exclude_categories=())))
def test_any_text_is_json_or_is_refused_and_nothing_else(text: str | bytes) -> None:
    with suppress(NotJSON):
        loads(text)


@given(anything_json)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(st.integers())
def test_an_integer_of_any_size_survives(number: int) -> None:
    assert loads(dumps({"n": number})) == {"n": number}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_to_the_last_bit(number: float) -> None:
    read = loads(dumps([number]))
    assert math.copysign(1, read[0]) == math.copysign(1, number)
    assert read == [number]


def test_writes_compact_json_in_utf_8_by_either_way() -> None:
    assert dumps({"ü": [1, 2]}) == '{"ü":[1,2]}'.encode()
    assert dumps({"ü": [1, 2**64]}) == '{"ü":[1,18446744073709551616]}'.encode()


# encode_entry


def test_the_bytes_are_the_entry_as_compact_json_in_the_order_of_its_fields() -> None:
    warnings: list[str] = []
    assert encode_entry(entry("ü", {"a": 1}), warnings) == (
        '{"id":"01a1fb67-5bd0-716c-b208-6b6eb13e7800","trace_id":null,"component":"c","level":"INFO",'
        '"message":"ü","data":{"a":1},"created_at":"2026-11-20T08:30:00.000000Z"}'.encode()
    )
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x00b", f"a{NUL_SHOWN}b"), ("a\ud800b", f"a{SURROGATE_SHOWN}b"), ("\udfff\x00", "�␀")]
)
def test_what_postgresql_cannot_hold_is_replaced_visibly_and_warned_about_once(text: str, shown: str) -> None:
    read, warnings = travelled(entry(text, {text: [text]}, component=text))
    assert (read["message"], read["component"], read["data"]) == (shown, shown, {shown: [shown]})
    assert warnings == [
        "characters that PostgreSQL cannot store were replaced: NUL by ␀, a lone surrogate by �"  # both are named
    ]


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "\\ud800", "C:\\users\\udo", "␀ and � themselves"])
def test_a_literal_backslash_is_not_taken_for_what_it_spells(text: str) -> None:
    read, warnings = travelled(entry(text, {text: text}))
    assert (read["message"], read["data"], warnings) == (text, {text: text}, [])


def test_a_literal_backslash_beside_a_real_nul_is_not_altered() -> None:
    read, warnings = travelled(entry("\\u0000 \x00"))
    assert read["message"] == "\\u0000 ␀"
    assert len(warnings) == 1


@given(any_text, st.dictionaries(any_text, anything_json))
def test_any_object_survives_its_journey_but_for_nul_and_surrogates(message: str, data: dict[str, Any]) -> None:
    read, warnings = travelled(entry(message, data))
    assert read["message"] == storable(message)
    assert read["data"] == storable(data)
    assert bool(warnings) == ((storable(message), storable(data)) != (message, data))


@given(any_text, st.dictionaries(any_text, anything_json))
def test_the_bytes_are_what_every_parser_of_json_takes(message: str, data: dict[str, Any]) -> None:
    raw = encode_entry(entry(message, data), [])
    assert b"\n" not in raw
    assert orjson.loads(raw)["message"] == json.loads(raw)["message"] == storable(message)


def nested(depth: int) -> dict[str, Any]:
    """Return data that is nested so deeply, made without recursion."""
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"": data}
    return data


@pytest.mark.parametrize("data", [nested(300), nested(499), {"a": json.loads("[" * 498 + "]" * 498)}])
def test_data_nested_deeper_than_the_fast_serialiser_goes_survives(data: dict[str, Any]) -> None:
    read, warnings = travelled(entry(data=data))
    assert read["data"] == data
    assert warnings == []


@pytest.mark.parametrize("message", ["m", "with a \x00"])
def test_data_nested_too_deeply_to_be_stored_is_refused(message: str) -> None:
    with pytest.raises(EntryRejected, match=r"^data: nested more than 500 levels deep$"):
        encode_entry(entry(message, nested(50_000)), [])


# Numbers and keys that a parser would change


def said(data: str) -> tuple[str, list[str]]:
    """Return `data` as it travels, and the warnings, of an entry whose `data` was written so."""
    warnings: list[str] = []
    raw = encode_entry(entry(data=loads_as_said(data)), warnings).decode()
    return raw[raw.index('"data":') + 7 : raw.rindex(',"created_at"')], warnings


@pytest.mark.parametrize(
    "number",
    ["3.14159265358979323846", "1E-400", "0.12345678901234567", "12345678901234567.25", "1.00000000000000000001"],
)
def test_a_number_that_no_float_holds_was_changed_without_a_word(number: str) -> None:
    assert said(f'{{"n":{number},"m":[1.5,{2**70}]}}') == (
        f'{{"n":{number},"m":[1.5,{2**70}]}}',
        ["data: numbers that a 64-bit float cannot hold are stored as written; most readers round them"],
    )


@pytest.mark.parametrize(
    ("number", "travels"),
    [("1.50", "1.5"), ("0.1", "0.1"), ("1E2", "100.0"), ("1732091400123456", "1732091400123456"), ("0e-999", "0.0"),
     ("1.2345678901234567", "1.2345678901234567"), ("1e-300", "1e-300"),
     ('"192.168.100.200:1234567890"', '"192.168.100.200:1234567890"')],
)  # fmt: skip
def test_a_number_that_a_float_holds_travels_without_a_warning(number: str, travels: str) -> None:
    assert said(f'{{"n":{number}}}') == (f'{{"n":{travels}}}', [])


@pytest.mark.parametrize("number", ["1e-99999", "1e-99999999999999999999", "0." + "1" * 6_000])
def test_a_number_that_postgresql_cannot_hold_is_refused(number: str) -> None:
    with pytest.raises(NotJSON, match="has more than 5,000 digits"):
        loads(number)


REPEATED = (
    "data: keys came more than once in one object; the last value of each counts, the others are kept in "
    "data._godot.repeated_keys"
)


@pytest.mark.parametrize(
    ("data", "travels"),
    [
        ('{"dup":1,"dup":2}', '{"dup":2,"_godot":{"repeated_keys":{"dup":[1]}}}'),
        ('{"a":[{"b":1,"b":[2],"b":3}]}', '{"a":[{"b":3}],"_godot":{"repeated_keys":{"a.b":[1,[2]]}}}'),
        ('{"a" : 1, "\\u0061" : 2}', '{"a":2,"_godot":{"repeated_keys":{"a":[1]}}}'),
    ],
)
def test_keys_that_came_twice_were_lost_without_a_word(data: str, travels: str) -> None:
    assert said(data) == (travels, [REPEATED])


@pytest.mark.parametrize(
    "data", ['{"a" : 1, "b": "\\u0022:"}', '{"a":{"b":1},"c":{"b":1}}', '{"t":"{\\"a\\":1,\\"a\\":2}"}']
)
def test_keys_that_only_look_as_if_they_came_twice_are_no_reason_for_a_warning(data: str) -> None:
    travels, warnings = said(data)
    assert (json.loads(travels), warnings) == (json.loads(data), [])


def test_so_many_repeated_keys_that_only_their_names_are_kept() -> None:
    text = "x" * 100
    many = ",".join(f'"k{number}":"{text}","k{number}":0' for number in range(1_000))
    travels, warnings = said("{" + many + "}")
    assert len(json.loads(travels)["_godot"]["repeated_keys"]) == KEPT_REPEATS
    assert warnings == [REPEATED]


# How much may be parsed


@pytest.mark.parametrize("part", ["1", "[]", '{"a":1}', '"k":1'])
def test_more_keys_and_values_than_may_be_parsed_are_refused_in_words(part: str) -> None:
    """LIM-001."""
    inner = ",".join([part] * 450_000)
    text = f"{{{inner}}}" if part.startswith('"') else f"[{inner}]"
    with pytest.raises(TooManyValues, match=r"may have 400,000 keys and values, .* as a text, which counts as one"):
        loads(text)


@pytest.mark.parametrize("text", ["a, b: [c] {d} " * 50_000, '{"a": [1, 2]}, ' * 50_000, '\\", [' * 150_000])
def test_a_long_text_is_one_value_whatever_is_in_it(text: str) -> None:
    """LIM-001."""
    assert loads(json.dumps([text, text])) == [text, text]


def test_an_entry_with_hundreds_of_thousands_of_values_passes_and_one_with_more_is_refused() -> None:
    """LIM-001."""
    assert encode_entry(entry(data={"a": list(range(390_000))}), [])
    with pytest.raises(EntryRejected, match="an entry may have 400,000 keys and values"):
        encode_entry(entry(data={"a": list(range(400_000))}), [])


@pytest.mark.parametrize(
    ("number", "many"),
    [("1e308", 4_000), ("1.5e-300", 4_000), ("1e-4999", 300), ("-2.5e+200", 6_000)],
)
def test_numbers_that_the_database_would_write_out_at_great_length_are_refused_in_words(number: str, many: int) -> None:
    """One such entry made every query that met it run out of time, and every follower behind it."""
    data = loads_as_said(f"[{','.join([number] * many)}]")
    with pytest.raises(EntryRejected, match="without their exponents, as the database writes them; send them as texts"):
        encode_entry(entry(data={"a": data}), [])


@pytest.mark.parametrize("number", ["1e308", "1e-4999", "2.5e-7", "1e22"])
def test_some_numbers_with_large_exponents_pass(number: str) -> None:
    encode_entry(entry(data={"a": loads_as_said(f"[{','.join([number] * 100)}]")}), [])


def test_what_looks_like_a_large_exponent_in_a_text_is_none() -> None:
    text = "0e99999 " * 50_000
    assert loads(encode_entry(entry(message=text, data={"a": text}), []))["message"] == text


def test_what_godot_serialised_is_told_from_what_others_push() -> None:
    """GOD-001: a list that others keep at one length hides that they pushed."""
    warnings: list[str] = []
    for value in (
        {"component": "relay", "level": "info", "message": "m"},
        {"component": 'r"\\ü✓' * 40, "level": "TRACE", "message": "", "data": {"n": [1.5, None]}},
        {"component": "a\x00\ud800", "level": "WARN", "message": "x", "trace_id": "0af7651916cd43dd8448eb211c80319c"},
        {"component": "c", "level": "ERROR", "message": "x", "created_at": "0001-01-01T00:00:00Z"},
    ):
        raw = encode_entry(admit_json(value, warnings), warnings)
        assert is_ours(raw), raw
        assert not is_ours(raw.replace(b'"level":', b'"level": '))
        assert not is_ours(raw[:-30] + b'"infinity"}')
        assert not is_ours(raw[1:])
    assert not is_ours(b"")
