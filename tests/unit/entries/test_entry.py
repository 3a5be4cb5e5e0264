"""What is accepted as an entry, what is repaired with a warning, and what is refused, field by field."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godot.entries.entry import Entry, IdSource, admit_json, is_uuid7
from godot.entries.levels import LEVELS
from godot.entries.wire import encode_entry
from godot.errors import EntryRejected
from godot.json.text import loads, loads_as_said

UUID4 = "0af76519-16cd-43dd-8448-eb211c80319c"
UUID7 = "01a1fb67-5bd0-716c-b208-6b6eb13e7800"

anything_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def admitted(**fields: object) -> tuple[Entry, list[str]]:
    """Return an entry, valid but for these fields, and what was warned about."""
    warnings: list[str] = []
    return admit_json({"component": "relay", "level": "INFO", "message": "hello", **fields}, warnings), warnings


def refusal(**fields: object) -> str:
    with pytest.raises(EntryRejected) as refused:
        admitted(**fields)
    return str(refused.value)


# What is accepted


def test_an_entry_of_all_fields_keeps_them() -> None:
    """MCP-001, MCP-002, MCP-003."""
    fields = {
        "component": "gates",
        "level": "TRACE",
        "message": "tools/list",
        "trace_id": UUID4,
        "data": {"frame": [1, None, {"a": "ü"}]},
        "created_at": "2026-11-20T08:30:00.123456Z",
        "id": UUID7,
    }
    warnings: list[str] = []
    entry = admit_json(fields, warnings)
    assert entry == Entry(**fields)  # type: ignore[arg-type]
    assert warnings == []


def test_only_component_level_and_message_are_required() -> None:
    """MCP-001: without the others, an id is made, and the time is now."""
    before = datetime.now(UTC)
    entry, warnings = admitted()
    assert (entry.trace_id, entry.data, warnings) == (None, None, [])
    assert UUID(entry.id).version == 7
    assert before <= datetime.fromisoformat(entry.created_at) <= datetime.now(UTC)


@pytest.mark.parametrize("field", ["trace_id", "data", "created_at", "id"])
def test_an_explicit_null_counts_as_left_out(field: str) -> None:
    """GOD-000: deployed clients send `data: null` and `trace_id: null`."""
    _, warnings = admitted(**{field: None})
    assert warnings == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_accepted_in_any_case(level: str) -> None:
    assert [admitted(level=each)[0].level for each in (level, level.lower(), level.title())] == [level] * 3


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-20T08:30:00Z", "2026-11-20T08:30:00.000000Z"),
        ("2026-11-20T08:30:00.5+01:00", "2026-11-20T07:30:00.500000Z"),
        ("2026-11-20 08:30", "2026-11-20T08:30:00.000000Z"),
        ("20261120T083000", "2026-11-20T08:30:00.000000Z"),
        ("2026-11-20T08:30:00.123456789-09:30", "2026-11-20T18:00:00.123456Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
        ("3000-12-31T23:59:59Z", "3000-12-31T23:59:59.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_created_at_is_any_iso_8601_and_becomes_utc_with_microseconds(written: str, meant: str) -> None:
    """DEW-005: 1970 and 3000 are stored, in the default partition."""
    assert admitted(created_at=written)[0].created_at == meant


@pytest.mark.parametrize("written", [UUID4, UUID4.upper(), UUID4.replace("-", ""), f"{{{UUID4}}}", f"urn:uuid:{UUID4}"])
def test_a_uuid_is_accepted_however_it_is_written(written: str) -> None:
    """COR-001: the trace-id of a traceparent is a UUID without dashes."""
    entry, warnings = admitted(id=written, trace_id=written)
    assert (entry.id, entry.trace_id, warnings) == (UUID4, UUID4, [])


def test_a_component_may_have_255_characters() -> None:
    assert admitted(component="ü" * 255)[0].component == "ü" * 255


def test_a_message_may_be_empty_or_of_megabytes() -> None:
    assert admitted(message="")[0].message == ""
    assert len(admitted(message="x" * 3_000_000)[0].message) == 3_000_000


# What is repaired with a warning


@pytest.mark.parametrize("text", ["trace-7", "", 7, True, ["x"], {"a": None}])
def test_a_trace_id_that_is_no_uuid_is_kept_in_the_data_and_the_reply_warns(text: object) -> None:
    entry, warnings = admitted(trace_id=text, data={"mine": 1})
    assert entry.trace_id is None
    assert entry.data == {"mine": 1, "_godot": {"trace_id": text}}
    assert warnings == ["trace_id: not a UUID; stored without it, the text is kept in data._godot.trace_id"]


def test_a_trace_id_that_is_no_uuid_is_kept_where_there_was_no_data() -> None:
    assert admitted(trace_id="t")[0].data == {"_godot": {"trace_id": "t"}}


def test_keeping_it_does_not_lose_what_was_kept_before_nor_change_what_the_client_sent() -> None:
    data = {"_godot": {"begins": "…"}}
    assert admitted(trace_id="t", data=data)[0].data == {"_godot": {"begins": "…", "trace_id": "t"}}
    assert data == {"_godot": {"begins": "…"}}


# What is refused


@pytest.mark.parametrize("missing", ["component", "level", "message"])
def test_a_required_field_that_is_missing_is_named(missing: str) -> None:
    """DEW-003."""
    fields = {"component": "a", "level": "INFO", "message": "b"}
    del fields[missing]
    with pytest.raises(EntryRejected, match=f"^{missing}: required, but missing$"):
        admit_json(fields, [])


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("component", None, "component: must be a string, not null"),
        ("component", 7, "component: must be a string, not a number"),
        ("component", "", "component: must not be empty"),
        ("component", "x" * 256, "component: at most 255 characters, not 256; put what does not fit into data"),
        ("level", 3, "level: must be a string, not a number"),
        ("level", ["INFO"], "level: must be a string, not an array"),
        ("level", "", "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, not ''"),
        (
            "level",
            "warning",
            "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, not 'warning'; did you mean 'WARN'?",
        ),
        ("level", "fatal", "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, not 'fatal'"),
        ("message", {"text": "x"}, "message: must be a string, not an object"),
        ("message", True, "message: must be a string, not a boolean"),
        ("data", "text", "data: must be an object, not a string"),
        ("data", [1], "data: must be an object, not an array"),
        ("id", "seven", "id: must be a UUID, not 'seven'; leave it out to have one made"),
        ("id", 7, "id: must be a string, not a number"),
        ("created_at", 1_763_600_000, "created_at: must be a string, not a number"),
        (
            "created_at",
            "yesterday",
            "created_at: must be ISO 8601 between the years 1 and 9999, such as 2026-11-20T08:30:00Z, not 'yesterday'",
        ),
    ],
)
def test_the_refusal_names_the_field_and_what_is_allowed(field: str, value: object, fault: str) -> None:
    """DEW-003."""
    assert refusal(**{field: value}) == fault


@pytest.mark.parametrize(
    "text",
    ["", "2026-13-01", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "\x00", "٣"],
)
def test_a_time_outside_the_calendar_is_refused_and_breaks_nothing(text: str) -> None:
    assert refusal(created_at=text).startswith("created_at: must be ISO 8601")


def test_an_unknown_field_is_refused_with_the_one_that_was_probably_meant() -> None:
    assert refusal(tracd_id=UUID4) == (
        "unknown field 'tracd_id'; did you mean 'trace_id'? "
        "(known: component, level, message, trace_id, data, created_at, id)"
    )


def test_one_refusal_names_every_fault() -> None:
    with pytest.raises(EntryRejected) as refused:
        admit_json({"component": 1, "data": [], "extra": 0}, [])
    text = str(refused.value)
    for fault in (
        "component: must be a string, not a number",
        "level: required, but missing",
        "message: required, but missing",
        "data: must be an object, not an array",
        "unknown field 'extra'",
    ):
        assert fault in text


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "null"), ([], "an array"), ("x", "a string"), (1.5, "a number"), (False, "a boolean")]
)
def test_what_is_no_object_is_refused(value: object, kind: str) -> None:
    with pytest.raises(EntryRejected, match=f"^must be an object, not {kind}$"):
        admit_json(value, [])


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(refusal(level="x" * 1_000_000)) < 300
    assert len(refusal(id="x" * 1_000_000)) < 300
    assert len(refusal(created_at="x" * 1_000_000)) < 300


@given(anything_json)
def test_any_json_is_an_entry_or_is_refused_and_nothing_else(value: Any) -> None:
    with suppress(EntryRejected):
        admit_json(value, [])


@given(
    st.fixed_dictionaries(
        {"component": st.text() | st.none(), "level": st.sampled_from(LEVELS) | st.text(), "message": anything_json},
        optional={
            "trace_id": anything_json,
            "data": anything_json,
            "created_at": st.text() | st.datetimes().map(str),
            "id": st.uuids().map(str) | st.text() | st.integers(0, 2**128 - 1).map(lambda each: f"{each:032x}"),
        },
    )
)
def test_whatever_the_fields_hold_it_is_an_entry_that_can_be_serialised_or_is_refused(value: Any) -> None:
    try:
        entry = admit_json(value, [])
        raw = encode_entry(entry, [])
    except EntryRejected:
        return
    # What was admitted once is admitted again, unchanged: the sender and Dewey see the same entry.
    warnings: list[str] = []
    again = admit_json(loads(raw), warnings)
    assert encode_entry(again, warnings) == raw
    assert warnings == []


# Ids


def test_ids_are_uuids_of_version_7_with_the_time_in_front() -> None:
    ids = IdSource(now_ns=lambda: 0x0123_4567_89AB * 1_000_000 + 999_999)
    made = [UUID(ids.next()) for _ in range(100)]
    assert {(each.version, each.variant) for each in made} == {(7, "specified in RFC 4122")}
    assert {each.int >> 80 for each in made} == {0x0123_4567_89AB}
    assert all(is_uuid7(str(each)) for each in made)


def test_ids_grow_within_a_millisecond() -> None:
    ids = IdSource(now_ns=lambda: 1_795_000_000_000_000_000)
    made = [ids.next() for _ in range(10_000)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_grow_from_millisecond_to_millisecond() -> None:
    clock = iter(range(1_795_000_000_000_000_000, 1_795_000_001_000_000_000, 1_000_000))
    ids = IdSource(now_ns=lambda: next(clock))
    made = [ids.next() for _ in range(1000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert len({each[:13] for each in made}) == 1000


def test_ids_grow_when_the_clock_steps_back_and_follow_it_when_it_has_caught_up() -> None:
    clock = iter([5_000_000, 1_000_000, 4_000_000, 5_999_999, 6_000_000])
    ids = IdSource(now_ns=lambda: next(clock))
    made = [ids.next() for _ in range(5)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert [int(each.replace("-", "")[:12], 16) for each in made] == [5, 5, 5, 5, 6]


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=30))
def test_ids_grow_whatever_the_clock_does(moments_ms: list[int]) -> None:
    clock = iter(moments_ms)
    ids = IdSource(now_ns=lambda: next(clock) * 1_000_000)
    made = [ids.next() for _ in moments_ms]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(is_uuid7(each) for each in made)


def test_two_daemons_do_not_make_the_same_ids() -> None:
    one, other = (IdSource(now_ns=lambda: 1_795_000_000_000_000_000) for _ in range(2))
    assert not {one.next() for _ in range(100)} & {other.next() for _ in range(100)}


def test_created_at_is_taken_out_of_an_id_that_names_a_time() -> None:
    """DEW-004: the same id sent again gets the same time, and is stored once."""
    entry, _ = admitted(id=UUID7)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=0x01A1_FB67_5BD0)
    assert datetime.fromisoformat(entry.created_at) == moment
    assert admitted(id=UUID7.upper())[0].created_at == entry.created_at


def test_a_time_that_was_given_wins_over_the_one_in_the_id() -> None:
    assert admitted(id=UUID7, created_at="2020-02-29")[0].created_at == "2020-02-29T00:00:00.000000Z"


def test_an_id_that_names_no_time_gets_the_present_one() -> None:
    before = datetime.now(UTC)
    assert datetime.fromisoformat(admitted(id=UUID4)[0].created_at) >= before


def test_an_id_that_names_a_time_beyond_the_calendar_gets_the_last_one_every_time() -> None:
    latest = "9999-12-31T23:59:59.999000Z"
    assert admitted(id="ffffffff-ffff-7fff-bfff-ffffffffffff")[0].created_at == latest
    assert admitted(id="e677d21f-dbff-7000-8000-000000000000")[0].created_at == latest
    assert admitted(id="e677d21f-dbfe-7000-8000-000000000000")[0].created_at == "9999-12-31T23:59:59.998000Z"


@pytest.mark.parametrize(
    ("text", "seven"),
    [(UUID7, True), (UUID4, False), (UUID7[:19] + "c" + UUID7[20:], False), (UUID7[:14] + "6" + UUID7[15:], False)],
)
def test_only_version_7_of_the_standard_variant_carries_a_time(text: str, *, seven: bool) -> None:
    assert is_uuid7(text) is seven


@pytest.mark.parametrize("field", ["component", "message", "data"])
def test_an_entry_that_gives_a_field_twice_is_refused(field: str) -> None:
    value = {"component": "c", "level": "INFO", "message": "m", "data": {}}
    twice = json.dumps(value)[:-1] + f', "{field}": {json.dumps(value[field])}}}'
    with pytest.raises(EntryRejected, match=f"^'{field}': given more than once$"):
        admit_json(loads_as_said(twice), [])


def test_repeated_keys_are_kept_beside_a_trace_id_that_is_none() -> None:
    data = loads_as_said('{"a":1,"a":2}')
    entry, warnings = admitted(data=data, trace_id="no UUID")
    kept = loads(encode_entry(entry, warnings))["data"]
    assert kept == {"a": 2, "_godot": {"trace_id": "no UUID", "repeated_keys": {"a": [1]}}}
    assert len(warnings) == 2


@pytest.mark.parametrize("field", ["level", "id", "created_at"])
def test_what_is_quoted_in_a_refusal_is_cut(field: str) -> None:
    """LIM-001: before it is quoted, too."""
    assert len(refusal(**{field: "x" * 1_000_000})) < 300
