"""Tests of Dewey's tools, on the store in memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_logs.query import Query
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import LogStore, Page, StoredEntry
from dewey_logs.tools import dewey_tools
from dewey_logs.tools.answers import DEFAULT_MAX_BYTES, LEAST_MAX_BYTES, MOST_MAX_BYTES
from godot.json.text import dumps
from godot.mcp.toolbox import Answer, Toolbox, caller
from tests.fakes import FakeStore

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Dewey:
    """The tools of a store, as a client calls them."""

    def __init__(self, store: LogStore | None = None) -> None:
        self.store = store or MemoryStore(lambda: NOW)
        self.tools = Toolbox(dewey_tools(self.store, now=lambda: NOW))

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that succeeds."""
        answer = await self.answer(name, **arguments)
        assert not answer.is_error, answer.json
        value = json.loads(answer.json)
        assert isinstance(value, dict)
        return value

    async def error(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that fails."""
        answer = await self.answer(name, **arguments)
        assert answer.is_error
        return dict(answer.value or {})

    async def answer(self, name: str, **arguments: Any) -> Answer:
        """Call a tool."""
        return await self.tools.find(name).call(arguments)

    async def log(self, *entries: dict[str, Any]) -> dict[str, Any]:
        """Store entries of which the tests care about little."""
        defaults = {"component": "relay", "level": "INFO", "message": "something happened"}
        return await self.call("dewey_store_logs_batch", logs=[{**defaults, **each} for each in entries])


def away() -> FakeStore:
    """Return a store whose database is down."""
    store = FakeStore()
    store.away = True
    return store


@pytest.fixture
def dewey() -> Dewey:
    """An empty Dewey."""
    return Dewey()


async def test_stores_a_batch_and_says_how_many_were_new(dewey: Dewey) -> None:
    """DEW-001, DEW-004."""
    one = {"id": str(uuid4()), "created_at": "2026-11-20T12:00:00Z"}
    assert await dewey.log(one, {}) == {"stored": 2, "duplicates": 0, "warnings": []}
    assert await dewey.log(one, one, {}) == {"stored": 1, "duplicates": 2, "warnings": []}


async def test_takes_1000_entries_and_names_the_limit_for_more(dewey: Dewey) -> None:
    """DEW-001."""
    assert (await dewey.log(*[{}] * 1_000))["stored"] == 1_000
    error = await dewey.error("dewey_store_logs_batch", logs=[{}] * 1_001)
    assert error["error"] == ("logs: at most 1,000 entries in one call, not 1,001; send the rest in further calls")


async def test_names_every_invalid_entry_and_stores_nothing(dewey: Dewey) -> None:
    """DEW-003, DEW-004."""
    good = {"component": "relay", "level": "INFO", "message": "fine"}
    error = await dewey.error(
        "dewey_store_logs_batch",
        logs=[good, {**good, "level": "LOUD"}, "no entry", good, {"component": "relay", "level": "INFO"}],
    )
    assert error["kind"] == "refused"
    assert error["faults"] == [
        {"index": 1, "error": "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, not 'LOUD'"},
        {"index": 2, "error": "must be an object, not a string"},
        {"index": 4, "error": "message: required, but missing"},
    ]
    assert (await dewey.call("dewey_query_logs"))["count"] == 0


async def test_warnings_name_their_entry(dewey: Dewey) -> None:
    answer = await dewey.log({}, {"trace_id": "none"}, {"message": "\x00"})
    assert [each[:8] for each in answer["warnings"]] == ["entry 1:", "entry 2:"]


async def test_an_empty_batch_asks_whether_the_database_is_there(dewey: Dewey) -> None:
    """REL-002: the sender's probe."""
    assert await dewey.log() == {"stored": 0, "duplicates": 0, "warnings": []}
    assert (await Dewey(away()).error("dewey_store_logs_batch", logs=[]))["kind"] == "unavailable"


@pytest.mark.parametrize(("name", "arguments"), [("dewey_query_logs", {}), ("dewey_maintain_partitions", {})])
async def test_says_unavailable_while_the_database_is_away(name: str, arguments: dict[str, Any]) -> None:
    """REL-002."""
    error = await Dewey(away()).error(name, **arguments)
    assert error == {"error": "PostgreSQL: away", "kind": "unavailable"}


async def test_an_answer_has_every_field_and_age(dewey: Dewey) -> None:
    """DEW-002, DEW-008."""
    entry = {
        "id": str(uuid4()),
        "trace_id": str(uuid4()),
        "component": "relay",
        "level": "WARN",
        "message": 'say "hi"',
        "data": {"n": 2**70, "nested": {"ü": [None, True]}},
        "created_at": "2026-11-20T11:59:00.500000Z",
    }
    await dewey.log(entry)
    assert await dewey.call("dewey_query_logs") == {
        "entries": [{**entry, "ingested_at": "2026-11-20T12:00:00.000000Z", "age": 59.5}],
        "count": 1,
        "next_cursor": None,
        "shortened": 0,
    }


async def test_filters_and_nulls_are_passed_on(dewey: Dewey) -> None:
    """DEW-006."""
    await dewey.log({"level": "ERROR", "message": "one"}, {"message": "two"}, {"component": "dewey"})
    found = await dewey.call(
        "dewey_query_logs", level="error", component="relay", search="one", trace_id=None, limit=None,
        order=None, cursor=None, max_bytes=None, start_time=None, end_time=None,
    )  # fmt: skip
    assert [each["message"] for each in found["entries"]] == ["one"]


async def test_relative_times_names_and_data_find_their_entries(dewey: Dewey) -> None:
    """DEW-006, DEW-007."""
    await dewey.log(
        {"message": "old", "created_at": "2026-11-20T11:44:59Z"},
        {"message": "fresh", "created_at": "2026-11-20T11:45:00Z", "data": {"a": {"b": 1}, "c": 2}},
        {"message": "elsewhere", "component": "gates-1", "created_at": "2026-11-20T11:45:00Z"},
    )

    async def found(**arguments: Any) -> list[str]:
        return [each["message"] for each in (await dewey.call("dewey_query_logs", **arguments))["entries"]]

    assert await found(start_time="-15m", end_time="now", component="relay") == ["fresh"]
    assert await found(end_time="-15m") == ["old"]
    assert sorted(await found(component=["gates*", "dewey"])) == ["elsewhere"]
    assert await found(data={"a": {"b": 1}}) == ["fresh"]
    assert await found(contains="ESH") == ["fresh"]
    assert "SQL/JSON paths" in (await dewey.error("dewey_query_logs", data_path="$.a"))["error"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"component": 5}, "component: does not take a number"),
        ({"data": "x"}, "data: must be an object, not a string"),
        ({"limit": 1_001}, "limit: from 1 to 1,000, not 1001"),
        ({"limit": "10"}, "limit: must be a whole number, not a string"),
        ({"level": "loud"}, "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE"),
        ({"order": "random"}, "order: must be one of newest, oldest"),
        ({"max_bytes": 999}, "max_bytes: from 1,000 to 921,600, not 999"),
        ({"max_bytes": 921_601}, "max_bytes: from 1,000 to 921,600, not 921,601"),
        ({"serach": "x"}, "unknown field 'serach'; did you mean 'search'?"),
    ],
)
async def test_a_bad_argument_is_named(dewey: Dewey, arguments: dict[str, Any], said: str) -> None:
    """DEW-006."""
    error = await dewey.error("dewey_query_logs", **arguments)
    assert error["kind"] == "rejected"
    assert error["error"].startswith(said)


async def walk(dewey: Dewey, **arguments: Any) -> list[dict[str, Any]]:
    """Follow next_cursor to the end; return the answers."""
    answers = [await dewey.call("dewey_query_logs", **arguments)]
    while answers[-1]["next_cursor"] is not None:
        answers.append(await dewey.call("dewey_query_logs", **arguments, cursor=answers[-1]["next_cursor"]))
    return answers


async def test_a_walk_by_cursor_shows_every_entry_once(dewey: Dewey) -> None:
    """DEW-006."""
    await dewey.log(*[{"message": str(number)} for number in range(25)])
    answers = await walk(dewey, limit=10, order="oldest")
    assert [answer["count"] for answer in answers] == [10, 10, 5]
    shown = [each["message"] for answer in answers for each in answer["entries"]]
    assert sorted(shown, key=int) == [str(number) for number in range(25)]


def travelling_bytes(answer: Answer) -> int:
    """Size of the text as it stands in a frame."""
    return len(dumps(answer.json))


async def test_entries_that_do_not_fit_are_left_to_the_next_page(dewey: Dewey) -> None:
    """An answer over 1 MiB makes clients drop the connection."""
    await dewey.log(*[{"message": str(number) + 'x"' * 1_000} for number in range(100)])
    answer = await dewey.answer("dewey_query_logs", max_bytes=20_000)
    assert 15_000 < travelling_bytes(answer) <= 20_000
    assert answer.value is None
    answers = await walk(dewey, max_bytes=20_000)
    assert sum(answer["count"] for answer in answers) == 100
    assert all(answer["shortened"] == 0 for answer in answers)


async def test_an_entry_too_large_for_any_answer_is_shortened_visibly(dewey: Dewey) -> None:
    await dewey.log({"message": "before"}, {"message": "ü" * 2_000_000, "data": {"small": 1}})
    first, last = await walk(dewey)
    (entry,) = first["entries"]
    assert first["shortened"] == 1
    assert entry["shortened"] == {"message": 2_000_000}
    assert entry["data"] == {"small": 1}
    assert entry["message"].endswith("ü…")
    assert len(entry["message"].encode()) > DEFAULT_MAX_BYTES * 0.98
    assert [each["message"] for each in last["entries"]] == ["before"]


async def test_large_data_is_shortened_to_the_beginning_of_its_text(dewey: Dewey) -> None:
    await dewey.log({"message": "fine", "data": {"list": list(range(350_000))}})
    (entry,) = (await dewey.call("dewey_query_logs"))["entries"]
    assert entry["message"] == "fine"
    assert entry["data"]["_godot"]["begins"].startswith('{"list":[0,1,2')
    assert entry["shortened"]["data"] > 2_000_000


@pytest.mark.parametrize("max_bytes", [LEAST_MAX_BYTES, 5_000, DEFAULT_MAX_BYTES, MOST_MAX_BYTES])
@pytest.mark.parametrize("text", ["x", '"', "\\", "\x01", "ü", "😀"])
async def test_no_answer_is_larger_than_max_bytes(dewey: Dewey, max_bytes: int, text: str) -> None:
    entry = {"component": text * 255, "message": text * 1_000_000, "data": {text: text * 1_000_000}}
    await dewey.log({**entry, "trace_id": str(uuid4())}, {})
    answer = await dewey.answer("dewey_query_logs", max_bytes=max_bytes, order="oldest")
    assert travelling_bytes(answer) <= max_bytes
    assert json.loads(answer.json)["count"] == 1


class FixedPage(MemoryStore):
    """Answers every query with the same page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    async def query(self, query: Query) -> Page:
        return self.page


@given(
    st.lists(st.tuples(st.text(max_size=400), st.text(max_size=300)), max_size=12),
    st.integers(LEAST_MAX_BYTES, 4_000),
    st.booleans(),
)
async def test_any_page_fits(texts: list[tuple[str, str]], max_bytes: int, more: bool) -> None:
    entries = [
        StoredEntry(
            id=str(uuid4()),
            trace_id=None,
            component="relay",
            level="INFO",
            message=message.encode(errors="ignore").decode(),
            data=json.dumps({"text": data}),
            created_at="2026-11-20T12:00:00.000000Z",
            ingested_at="2026-11-20T12:00:00.000000Z",
            age=1.5,
        )
        for message, data in texts
    ]
    dewey = Dewey(FixedPage(Page(entries, more=more and bool(entries))))
    answer = await dewey.answer("dewey_query_logs", max_bytes=max_bytes)
    said = json.loads(answer.json)
    assert travelling_bytes(answer) <= max_bytes
    assert said["count"] == len(said["entries"])
    assert said["count"] >= min(1, len(entries))
    assert (said["next_cursor"] is not None) == ((more and bool(entries)) or said["count"] < len(entries))


async def test_an_answer_has_only_the_fields_that_were_asked_for(dewey: Dewey) -> None:
    await dewey.log({"component": "relay", "level": "INFO", "message": "hi", "data": {"a": 1}})
    for fields in (["message"], ["data"], ["age", "data", "level"], ["id", "trace_id", "component", "created_at"]):
        (entry,) = (await dewey.call("dewey_query_logs", fields=fields))["entries"]
        assert set(entry) == set(fields)
    assert len((await dewey.call("dewey_query_logs", fields=[]))["entries"][0]) == 9
    assert "'mesage'; did you mean 'message'?" in (await dewey.error("dewey_query_logs", fields=["mesage"]))["error"]


async def test_a_field_that_was_not_asked_for_is_not_shortened(dewey: Dewey) -> None:
    await dewey.log({"component": "relay", "level": "INFO", "message": "m" * 2_000_000})
    answer = await dewey.call("dewey_query_logs", fields=["component"])
    assert answer["entries"] == [{"component": "relay"}]
    assert answer["shortened"] == 0


async def test_maintenance_says_what_it_did(dewey: Dewey) -> None:
    """DEW-005."""
    await dewey.log({"created_at": "2026-11-20T01:00:00Z"}, {"created_at": "1970-01-01"})
    answer = await dewey.call("dewey_maintain_partitions")
    assert answer["created"][:2] == ["logs_2026_11_19", "logs_2026_11_20"]
    assert len(answer["created"]) == 9
    assert answer["moved"] == 1
    assert await dewey.call("dewey_maintain_partitions") == {"created": [], "moved": 0}


async def test_statistics_count_by_component_and_level(dewey: Dewey) -> None:
    """DEW-010."""
    await dewey.log({}, {"level": "ERROR"}, {"component": "dewey", "created_at": "2026-11-20T11:00:00Z"})
    answer = await dewey.call("dewey_get_log_stats")
    assert list(answer) == ["total", "by_component", "by_level", "oldest", "newest", "size_bytes"]
    assert answer["total"] == 3
    assert answer["by_component"] == {"relay": 2, "dewey": 1}
    assert answer["by_level"] == {"ERROR": 1, "WARN": 0, "INFO": 2, "DEBUG": 0, "TRACE": 0}
    assert answer["oldest"] == "2026-11-20T11:00:00.000000Z"


async def test_statistics_stay_small_however_many_components_there_are(dewey: Dewey) -> None:
    """An answer over 1 MiB makes clients drop the connection."""
    await dewey.log(*[{"component": f"c{number % 999}"} for number in range(1_000)])
    await dewey.log(*[{"component": f"d{number}"} for number in range(1_000)])
    answer = await dewey.call("dewey_get_log_stats")
    assert answer["total"] == 2_000
    assert len(answer["by_component"]) == 1_000
    assert answer["further_components"] == 999
    assert next(iter(answer["by_component"].items())) == ("c0", 2)


async def test_following_gives_entries_and_a_cursor(dewey: Dewey) -> None:
    await dewey.log({"message": "old"}, {"message": "x" * 3_000}, {"message": "new"})
    begun = await dewey.call("dewey_tail_logs", last=3, wait_s=0, max_bytes=2_000)
    assert [each["message"] for each in begun["entries"]] == ["new"], "of what does not fit the oldest is left out"
    await dewey.log({"message": "a"}, {"message": "b" * 1_000}, {"message": "c" * 1_000}, {"message": "d" * 9_000})
    read = []
    cursor = begun["cursor"]
    while (page := await dewey.call("dewey_tail_logs", cursor=cursor, wait_s=0, max_bytes=2_500, fields=["message"]))[
        "entries"
    ]:
        assert (page["missed"], len(json.dumps(json.dumps(page)))) <= (0, 2_500)
        read += [each["message"][:1] for each in page["entries"]]
        cursor = page["cursor"]
    assert read == ["a", "b", "c", "d"]
    for wrong in ({"last": -1}, {"last": 1_001}, {"wait_s": 31}, {"wait_s": -1}, {"max_bytes": 1}, {"cursor": "?"}):
        assert (await dewey.error("dewey_tail_logs", **wrong))["kind"] == "rejected"


async def test_clearing_needs_no_filter_and_takes_all_of_them(dewey: Dewey) -> None:
    """DEW-009."""
    await dewey.log({"created_at": "2026-11-13T11:59:59Z"}, {"created_at": "2026-11-13T12:00:00Z"}, {"level": "DEBUG"})
    assert await dewey.call("dewey_clear_logs", dry_run=True) == {"deleted": 1, "dry_run": True}
    assert await dewey.call("dewey_clear_logs", by="me") == {"deleted": 1, "dry_run": False}
    assert await dewey.call("dewey_clear_logs", level="debug", component="re*") == {"deleted": 1, "dry_run": False}
    assert (await dewey.call("dewey_get_log_stats"))["total"] == 1
    assert isinstance(dewey.store, MemoryStore)
    assert [each[:2] for each in dewey.store.clears] == [("inside", "me"), ("inside", None)]


async def test_the_note_of_a_clearing_says_where_it_came_from_whatever_its_caller_says(dewey: Dewey) -> None:
    assert isinstance(dewey.store, MemoryStore)
    token = caller.set("10.0.0.3:41000")
    await dewey.call("dewey_clear_logs", level="debug", by="retention")
    await dewey.call("dewey_clear_logs", level="debug", by="retention", for_peer="127.0.0.1:9")
    caller.reset(token)
    await dewey.call("dewey_clear_logs", level="debug", for_peer="10.0.0.4:41000")
    assert [each[:2] for each in dewey.store.clears] == [
        ("10.0.0.3:41000", "retention"),
        ("127.0.0.1:9 by way of 10.0.0.3:41000", "retention"),
        ("10.0.0.4:41000", None),
    ]


@pytest.mark.parametrize("argument", ["by", "for_peer"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("dewey_clear_logs", {"level": "DEBUG"}),
        ("dewey_pin_trace", {"trace_id": "0193a1b2-7c3d-4e4f-8a9b-0123456789ab"}),
        ("dewey_set_log_level", {"component": "relay", "level": "INFO"}),
    ],
)
@pytest.mark.parametrize("text", ["a\u0000b", "\ud800", "x" * 256])
async def test_a_name_that_postgresql_cannot_hold_is_refused_and_named(
    dewey: Dewey, tool: str, arguments: dict[str, Any], argument: str, text: str
) -> None:
    refused = await dewey.error(tool, **arguments, **{argument: text})
    assert refused["kind"] == "rejected"
    assert refused["error"].startswith(f"{argument}: ")


async def test_a_trace_is_pinned_and_let_go(dewey: Dewey) -> None:
    """DEW-009."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    listed = await dewey.call("dewey_pin_trace", trace_id=trace, note="why", until="2d")
    assert listed == {
        "pins": [
            {
                "trace_id": "0af76519-16cd-43dd-8448-eb211c80319c",
                "note": "why",
                "pinned_at": "2026-11-20T12:00:00.000000Z",
                "until": "2026-11-22T12:00:00.000000Z",
            }
        ]
    }
    assert await dewey.call("dewey_pin_trace") == listed
    assert await dewey.call("dewey_pin_trace", trace_id=trace, remove=True) == {"pins": []}
    for wrong in (
        {"trace_id": "x"},
        {"note": "x"},
        {"trace_id": trace, "until": "-1d"},
        {"trace_id": trace, "note": "\0"},
    ):
        assert (await dewey.error("dewey_pin_trace", **wrong))["kind"] == "rejected"


def test_the_listing_tells_limits_units_and_hints(dewey: Dewey) -> None:
    listing = {each["name"]: each for each in dewey.tools.listing()}
    assert list(listing) == [
        "dewey_store_logs_batch", "dewey_query_logs", "dewey_tail_logs", "dewey_maintain_partitions",
        "dewey_set_log_level", "dewey_get_log_levels", "dewey_clear_logs", "dewey_pin_trace", "dewey_get_log_stats",
    ]  # fmt: skip
    query = listing["dewey_query_logs"]
    assert query["annotations"]["readOnlyHint"]
    assert "required" not in query["inputSchema"]
    properties = query["inputSchema"]["properties"]
    assert properties["limit"]["maximum"] == 1_000
    assert properties["limit"]["default"] == 100
    assert all(each.get("description") for each in properties.values())
    store = listing["dewey_store_logs_batch"]
    assert store["inputSchema"]["properties"]["logs"]["maxItems"] == 1_000
    assert set(store["inputSchema"]["properties"]["logs"]["items"]["properties"]) == {
        "component", "level", "message", "trace_id", "data", "created_at", "id",
    }  # fmt: skip
    assert json.dumps(list(listing.values()))
