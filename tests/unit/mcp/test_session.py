"""MCP on one connection, without a socket: what each message is answered with, in each version."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godot.json.structure import argument
from godot.json.text import loads
from godot.mcp.session import LEGACY_VERSIONS, LIST_TTL_MS, Event, Run, Send, ServerInfo, Session, Stop
from godot.mcp.toolbox import STRUCTURED_MAX_BYTES, Answer, Tool, Toolbox

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"
ENVELOPE: dict[str, Any] = {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {}}
MODERN: dict[str, Any] = {"_meta": ENVELOPE}


@attrs.frozen
class Text:
    text: str = argument("said again", default="")


async def never_run(_: Text) -> Answer:
    raise AssertionError("the session runs nothing itself")


TOOLBOX = Toolbox(
    [
        Tool(
            name="logger_echo",
            title="Echo",
            description="Says it again.",
            arguments=Text,
            run=never_run,
            aliases=["godot_logger_echo"],
        ),
        Tool(
            name="logger_other",
            title="Other",
            description="Does nothing.",
            arguments=Text,
            run=never_run,
            read_only=True,
        ),
    ]
)


class Peer:
    """The other end of a session; runs its calls at once unless it is told to hold them."""

    def __init__(self, version: str | None = None) -> None:
        self.session = Session(ServerInfo("godot", "9.9", "Use logger_echo."), TOOLBOX)
        self.held: list[Run] = []
        self.holds = False
        if version is not None:
            self.ask("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {}})

    def receive(self, frame: object) -> list[Event]:
        return self.session.receive(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def say(self, frame: object) -> list[Any]:
        """Say a frame; return the frames that come back."""
        answers = []
        for event in self.receive(frame):
            match event:
                case Send(text):
                    answers.append(loads(text))
                case Run() if self.holds:
                    self.held.append(event)
                case Run():
                    answers += self.finish(event)
        return answers

    def finish(self, run: Run) -> list[Any]:
        """Let a held call end."""
        text = self.session.answer(run.call, Answer.of({"echo": dict(run.call.arguments)}))
        return [] if text is None else [loads(text)]

    def ask(self, method: str, params: object = None, request_id: object = 1) -> Any:
        """Make a request, and return its answer."""
        (answer,) = self.say(request(method, params, request_id))
        return answer


def request(method: object, params: object = None, request_id: object = 1) -> dict[str, Any]:
    given = {} if params is None else {"params": params}
    return {"jsonrpc": "2.0", "id": request_id, "method": method, **given}


def call(request_id: object = 1, **arguments: object) -> dict[str, Any]:
    return request("tools/call", {"name": "logger_echo", "arguments": arguments}, request_id)


def cancelled(request_id: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


def error(answer: Any) -> tuple[object, int]:
    """Return (id, code) of an answer that has to be an error, and nothing else."""
    assert set(answer) == {"jsonrpc", "id", "error"}
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["message"]
    return answer["id"], answer["error"]["code"]


# What is no request


@pytest.mark.parametrize(
    "frame", ["", "{", "hello", "[1,", b"\xff\xfe", b'"\xed\xa0\x80"', "NaN", "\ud800", "[" * 9999]
)
def test_what_is_not_json_is_a_parse_error_without_an_id_and_the_connection_lives(frame: str | bytes) -> None:
    peer = Peer()
    (answer,) = peer.say(frame)
    assert error(answer) == (None, -32700)
    assert peer.ask("ping")["result"] == {}


def test_binary_frames_are_taken_as_the_utf_8_they_are() -> None:
    assert Peer().say(json.dumps(request("ping")).encode()) == [{"jsonrpc": "2.0", "id": 1, "result": {}}]


@pytest.mark.parametrize("frame", [1, "text", None, True, 1.5])
def test_what_is_no_object_is_an_invalid_request(frame: object) -> None:
    (answer,) = Peer().say(json.dumps(frame))
    assert error(answer) == (None, -32600)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"id": 1, "method": "ping"},
        {"jsonrpc": 2.0, "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "method": None},
        {"jsonrpc": "2.0", "id": 1, "method": ["ping"]},
        {"jsonrpc": "2.0", "method": 7},
    ],
)
def test_an_object_that_is_no_request_is_an_invalid_request(frame: object) -> None:
    (answer,) = Peer().say(frame)
    assert error(answer) == (None, -32600)


@pytest.mark.parametrize("request_id", [None, True, False, 1.5, 1.0, {}, {"a": 1}, [], [1]])
def test_an_id_that_is_neither_a_string_nor_an_integer_is_an_invalid_request(request_id: object) -> None:
    (answer,) = Peer().say(request("ping", request_id=request_id))
    assert error(answer) == (None, -32600)


@pytest.mark.parametrize(
    "request_id", [0, -1, 2**70, "", "7", "0af76519-16cd-43dd-8448-eb211c80319c", "ü\ud800", "x" * 1000]
)
def test_every_legal_id_comes_back_as_it_was(request_id: object) -> None:
    answers = Peer().say(request("ping", request_id=request_id)) + Peer().say(call(request_id))
    assert [answer["id"] for answer in answers] == [request_id, request_id]
    assert [type(answer["id"]) for answer in answers] == [type(request_id)] * 2


@pytest.mark.parametrize(
    "frame",
    [{"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}, {"result": None}],
)
def test_responses_are_dropped_because_nothing_was_asked(frame: object) -> None:
    assert Peer().say(frame) == []


@pytest.mark.parametrize(
    "method",
    [
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "tools/call",
        "x",
    ],
)
@pytest.mark.parametrize("params", [None, {}, [], 7, {"_meta": ENVELOPE}])
def test_notifications_are_never_answered(method: str, params: object) -> None:
    assert Peer().say({"jsonrpc": "2.0", "method": method, "params": params}) == []


@pytest.mark.parametrize("params", [[], [1], "x", 7, True])
def test_params_that_are_no_object_are_invalid(params: object) -> None:
    assert error(Peer().ask("tools/list", params)) == (1, -32602)


# Cancelling


def test_a_cancelled_call_is_stopped_and_nothing_is_sent_for_it() -> None:
    peer = Peer()
    (run,) = peer.receive(call(5))
    assert isinstance(run, Run)
    assert peer.receive(cancelled(5)) == [Stop(run.call)]
    assert peer.finish(run) == []


@pytest.mark.parametrize("request_id", [6, "5", None, True, 5.0, [], {}])
def test_cancelling_what_is_not_in_flight_does_nothing(request_id: object) -> None:
    peer = Peer()
    peer.holds = True
    peer.say(call(5))
    peer.say(call(1))
    assert peer.receive(cancelled(request_id)) == []
    assert [answer["id"] for run in peer.held for answer in peer.finish(run)] == [5, 1]


def test_cancelling_a_call_that_was_answered_does_nothing() -> None:
    peer = Peer()
    assert len(peer.say(call(5))) == 1
    assert peer.receive(cancelled(5)) == []


@pytest.mark.parametrize("params", [None, [], "5", {}])
def test_a_cancellation_that_names_nothing_does_nothing(params: object) -> None:
    assert Peer().say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}) == []


def test_two_calls_that_share_an_id_are_both_answered() -> None:
    """Some hand-written clients count nothing, and send 1 each time."""
    peer = Peer()
    peer.holds = True
    peer.say(call(1, text="a"))
    peer.say(call(1, text="b"))
    answers = [answer for run in peer.held for answer in peer.finish(run)]
    assert [json.loads(each["result"]["content"][0]["text"])["echo"] for each in answers] == [
        {"text": "a"},
        {"text": "b"},
    ]


# initialize, and calls without it


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_initialize_agrees_on_each_version_that_begins_with_it(version: str) -> None:
    answer = Peer().ask("initialize", {"protocolVersion": version, "capabilities": {"roots": {}}})
    assert answer == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "godot", "version": "9.9"},
            "instructions": "Use logger_echo.",
        },
    }


@pytest.mark.parametrize(
    "params",
    [{"protocolVersion": asked} for asked in ("2026-07-28", "2099-01-01", "2024-10-07", "", None, 7, ["2024-11-05"])]
    + [{}, {"_meta": {}}, {"protocolVersion": {"a": 1}}],
)
def test_initialize_with_any_other_version_or_none_is_answered_with_the_latest(params: object) -> None:
    """GOD-000: a deployed client's test sends `params: {}`."""
    assert Peer().ask("initialize", params)["result"]["protocolVersion"] == "2025-11-25"


def test_initialize_may_come_without_params_or_with_null() -> None:
    assert Peer().ask("initialize")["result"]["protocolVersion"] == "2025-11-25"
    (answer,) = Peer().say({**request("initialize"), "params": None})
    assert answer["result"]["protocolVersion"] == "2025-11-25"


def test_a_call_as_the_first_frame_is_taken_for_the_oldest_version() -> None:
    """GOD-000: a bare tools/call, with no initialize, works."""
    answer = Peer().ask("tools/call", {"name": "logger_echo", "arguments": {"text": "hi"}})
    assert answer == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"content": [{"type": "text", "text": '{"echo":{"text":"hi"}}'}], "isError": False},
    }


def test_listing_and_ping_work_before_initialize_too() -> None:
    peer = Peer()
    assert peer.ask("ping") == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert [tool["name"] for tool in peer.ask("tools/list")["result"]["tools"]] == ["logger_echo", "logger_other"]


def test_a_second_initialize_changes_the_agreement() -> None:
    peer = Peer("2025-11-25")
    peer.ask("initialize", {"protocolVersion": "2024-11-05"})
    (answer,) = peer.say(call())
    assert "structuredContent" not in answer["result"]


@pytest.mark.parametrize(
    "method",
    ["server/discover", "prompts/list", "resources/list", "logging/setLevel", "completion/complete", "", "x" * 999],
)
def test_a_method_that_is_not_served_is_not_found(method: str) -> None:
    """An SDK's probe with `server/discover` and no envelope falls back to initialize on this code."""
    for peer in (Peer(), Peer("2025-11-25")):
        assert error(peer.ask(method)) == (1, -32601)


# Calls


@pytest.mark.parametrize(
    ("version", "structured"),
    [(None, False), ("2024-11-05", False), ("2025-03-26", False), ("2025-06-18", True), ("2025-11-25", True)],
)
def test_structured_content_is_sent_to_the_versions_that_have_it(version: str | None, *, structured: bool) -> None:
    (answer,) = Peer(version).say(call(text="hi"))
    assert answer["result"].get("structuredContent") == ({"echo": {"text": "hi"}} if structured else None)
    assert ("structuredContent" in answer["result"]) is structured
    assert not {"resultType", "_meta", "ttlMs"} & set(answer["result"])


def test_a_large_result_travels_once_as_text() -> None:
    (answer,) = Peer("2025-11-25").say(call(text="x" * STRUCTURED_MAX_BYTES))
    assert "structuredContent" not in answer["result"]
    assert json.loads(answer["result"]["content"][0]["text"])["echo"]["text"] == "x" * STRUCTURED_MAX_BYTES


def test_an_answer_that_is_an_error_is_a_result_that_says_so() -> None:
    peer = Peer("2025-11-25")
    (run,) = peer.receive(call())
    assert isinstance(run, Run)
    frame = peer.session.answer(run.call, Answer("no", {"error": "no", "kind": "rejected"}, is_error=True))
    assert frame is not None
    assert loads(frame)["result"] == {
        "content": [{"type": "text", "text": "no"}],
        "isError": True,
        "structuredContent": {"error": "no", "kind": "rejected"},
    }


def test_a_tool_is_called_by_its_aliases_which_are_not_listed() -> None:
    """GOD-000: a deployed client calls godot_logger_log."""
    answer = Peer().ask("tools/call", {"name": "godot_logger_echo"})
    assert answer["result"]["isError"] is False


@pytest.mark.parametrize("params", [{"name": "logger_echo"}, {"name": "logger_echo", "arguments": None}])
def test_arguments_may_be_left_out_or_null(params: object) -> None:
    answer = Peer().ask("tools/call", params)
    assert answer["result"]["content"][0]["text"] == '{"echo":{}}'


def test_explicit_nulls_reach_the_tool() -> None:
    (answer,) = Peer().say(call(text=None))
    assert answer["result"]["content"][0]["text"] == '{"echo":{"text":null}}'


def test_an_unknown_tool_is_refused_with_the_one_that_was_probably_meant() -> None:
    answer = Peer().ask("tools/call", {"name": "loger_echo"})
    assert error(answer) == (1, -32602)
    assert answer["error"]["message"] == "Unknown tool: loger_echo; did you mean 'logger_echo'?"


@pytest.mark.parametrize("params", [None, {}, {"name": None}, {"name": 7}, {"name": ["logger_echo"]}])
def test_a_call_without_the_name_of_a_tool_is_refused(params: object) -> None:
    assert error(Peer().ask("tools/call", params)) == (1, -32602)


@pytest.mark.parametrize("arguments", [[], [1], "x", 7, False])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    assert error(Peer().ask("tools/call", {"name": "logger_echo", "arguments": arguments})) == (1, -32602)


@pytest.mark.parametrize("cursor", ["", "abc", 7])
@pytest.mark.parametrize("more", [{}, MODERN])
def test_a_cursor_that_was_not_issued_is_refused(cursor: object, more: dict[str, Any]) -> None:
    assert error(Peer().ask("tools/list", {"cursor": cursor, **more})) == (1, -32602)


def test_a_null_cursor_is_none() -> None:
    assert "tools" in Peer().ask("tools/list", {"cursor": None})["result"]


# Batches


def test_a_batch_after_initialize_2025_03_26_is_answered_in_one_array() -> None:
    peer = Peer("2025-03-26")
    (answers,) = peer.say([request("ping", request_id="a"), request("nope", request_id=2), 7])
    assert [(answer["id"], "result" in answer) for answer in answers] == [("a", True), (2, False), (None, False)]


def test_a_batch_with_calls_is_answered_when_its_last_call_is() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    assert peer.say([call(1), request("ping", request_id=2), call(3)]) == []
    first, second = peer.held
    assert peer.finish(second) == []
    (answers,) = peer.finish(first)
    assert sorted(answer["id"] for answer in answers) == [1, 2, 3]


def test_a_batch_of_notifications_only_is_answered_with_nothing() -> None:
    notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert Peer("2025-03-26").say([notice, notice, cancelled(7), {"jsonrpc": "2.0", "id": 1, "result": {}}]) == []


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-06-18", "2025-11-25"])
def test_a_batch_of_any_other_version_is_an_invalid_request(version: str | None) -> None:
    (answer,) = Peer(version).say([request("ping")])
    assert error(answer) == (None, -32600)


def test_an_empty_batch_is_an_invalid_request() -> None:
    (answer,) = Peer("2025-03-26").say([])
    assert error(answer) == (None, -32600)


def test_initialize_inside_of_a_batch_is_refused() -> None:
    peer = Peer("2025-03-26")
    ((answer,),) = peer.say([request("initialize", {"protocolVersion": "2025-11-25"})])
    assert error(answer) == (1, -32600)
    assert len(peer.say([request("ping")])) == 1  # still 2025-03-26


def test_a_call_cancelled_out_of_a_batch_is_missing_in_its_array() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    peer.say([call(1), call(2)])
    assert peer.finish(peer.held[1]) == []
    (answers,) = peer.say(cancelled(1))  # with it, nothing is open any more
    assert [answer["id"] for answer in answers] == [2]
    assert peer.finish(peer.held[0]) == []


def test_a_batch_whose_only_call_is_cancelled_is_answered_with_nothing() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    peer.say([call(1)])
    assert peer.say(cancelled(1)) == []
    assert peer.finish(peer.held[0]) == []


def test_a_call_cancelled_by_its_own_batch_is_missing_in_its_array() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    (answers,) = peer.say([call(1), cancelled(1), request("ping", request_id=2)])
    assert [answer["id"] for answer in answers] == [2]
    assert peer.finish(peer.held[0]) == []


def test_a_call_cancelled_by_its_own_batch_does_not_send_the_array_before_its_end() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    batch = [request("ping", request_id=1), call(2), cancelled(2), request("ping", request_id=3)]
    (answers,) = peer.say(batch)
    assert [answer["id"] for answer in answers] == [1, 3]


def test_a_batch_in_which_two_calls_share_an_id_is_answered_all_the_same() -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    peer.say([call(1, text="a"), call(1, text="b")])
    (answers,) = [frame for run in peer.held for frame in peer.finish(run)]
    assert [answer["id"] for answer in answers] == [1, 1]


# 2026-07-28: no handshake, every request for itself


def test_discover_says_what_is_there() -> None:
    answer = Peer().ask("server/discover", MODERN)
    assert answer["result"] == {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "instructions": "Use logger_echo.",
        "ttlMs": LIST_TTL_MS,
        "cacheScope": "public",
        "_meta": {SERVER_INFO_KEY: {"name": "godot", "version": "9.9"}},
    }


def test_a_modern_list_may_be_kept_for_a_while() -> None:
    """Both SDKs fail hard on a list without ttlMs or cacheScope."""
    result = Peer().ask("tools/list", MODERN)["result"]
    assert [tool["name"] for tool in result["tools"]] == ["logger_echo", "logger_other"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", LIST_TTL_MS, "public")
    assert result["_meta"][SERVER_INFO_KEY]["name"] == "godot"


def test_a_modern_call_is_answered_with_the_envelope_of_its_version() -> None:
    answer = Peer().ask("tools/call", {"name": "logger_echo", "arguments": {"text": "hi"}, **MODERN})
    assert answer["result"] == {
        "resultType": "complete",
        "content": [{"type": "text", "text": '{"echo":{"text":"hi"}}'}],
        "isError": False,
        "structuredContent": {"echo": {"text": "hi"}},
        "_meta": {SERVER_INFO_KEY: {"name": "godot", "version": "9.9"}},
    }


@pytest.mark.parametrize("method", ["ping", "initialize", "logging/setLevel", "prompts/list", "subscriptions/listen"])
def test_what_2026_07_28_has_no_more_or_we_do_not_serve_is_not_found(method: str) -> None:
    assert error(Peer().ask(method, {"protocolVersion": "2025-11-25", **MODERN})) == (1, -32601)


@pytest.mark.parametrize("capabilities", [None, [], "x", True])
def test_a_modern_request_has_to_name_its_capabilities(capabilities: object) -> None:
    params = {"_meta": {**ENVELOPE, CAPABILITIES_KEY: capabilities}}
    assert error(Peer().ask("tools/list", params)) == (1, -32602)
    assert error(Peer().ask("tools/list", {"_meta": {VERSION_KEY: "2026-07-28"}})) == (1, -32602)


@pytest.mark.parametrize("version", ["2099-01-01", "2025-11-25", ""])
def test_a_modern_request_of_another_version_is_told_which_ones_there_are(version: str) -> None:
    answer = Peer().ask("tools/list", {"_meta": {**ENVELOPE, VERSION_KEY: version}})
    assert error(answer) == (1, -32022)
    assert answer["error"]["data"] == {"supported": ["2026-07-28"], "requested": version}


@pytest.mark.parametrize("version", [None, 7, ["2026-07-28"], {}])
def test_a_version_that_is_no_string_is_invalid(version: object) -> None:
    assert error(Peer().ask("tools/list", {"_meta": {**ENVELOPE, VERSION_KEY: version}})) == (1, -32602)


@pytest.mark.parametrize(("level", "fine"), [("debug", True), ("emergency", True), ("loud", False), (7, False)])
def test_a_modern_request_may_name_a_log_level_of_mcp(level: object, *, fine: bool) -> None:
    answer = Peer().ask("tools/list", {"_meta": {**ENVELOPE, "io.modelcontextprotocol/logLevel": level}})
    assert answer.get("error", {}).get("code") == (None if fine else -32602)


def test_both_eras_are_served_on_one_connection_request_by_request() -> None:
    """A failed probe locks nothing, and a modern request does not touch what initialize agreed on."""
    peer = Peer()
    assert error(peer.ask("tools/list", {"_meta": {**ENVELOPE, VERSION_KEY: "2099-01-01"}})) == (1, -32022)
    assert peer.ask("initialize", {"protocolVersion": "2025-03-26"})["result"]["protocolVersion"] == "2025-03-26"
    assert peer.ask("tools/list", MODERN)["result"]["resultType"] == "complete"
    assert peer.ask("initialize", MODERN)["error"]["code"] == -32601
    assert len(peer.say([request("ping")])) == 1  # batches: still 2025-03-26
    assert "resultType" not in peer.ask("tools/list")["result"]


@pytest.mark.parametrize(
    "meta", [None, [], "x", {}, {"progressToken": 1, "traceparent": "00-x", "claudecode/toolUseId": 1}]
)
def test_other_keys_of_meta_are_ignored(meta: object) -> None:
    assert "tools" in Peer().ask("tools/list", {"_meta": meta})["result"]


# Whatever a peer sends

anything_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
ids = st.sampled_from([0, 1, 2, "", "1"]) | st.integers() | st.text(max_size=5)
metas = st.fixed_dictionaries(
    {},
    optional={
        VERSION_KEY: st.sampled_from(["2026-07-28", "2099-01-01"]) | anything_json,
        CAPABILITIES_KEY: st.just({}) | anything_json,
    },
)
params = st.fixed_dictionaries(
    {},
    optional={
        "_meta": metas | anything_json,
        "name": st.sampled_from(["logger_echo", "nope"]) | anything_json,
        "arguments": st.just({}) | anything_json,
        "protocolVersion": st.sampled_from(LEGACY_VERSIONS) | anything_json,
        "requestId": ids | anything_json,
        "cursor": anything_json,
    },
)
methods = st.sampled_from(
    ["initialize", "ping", "tools/list", "tools/call", "server/discover", "notifications/cancelled", "x"]
)
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | anything_json},
    optional={
        "id": ids | anything_json,
        "method": methods | anything_json,
        "params": params | anything_json,
        "result": anything_json,
    },
)
frames = messages | st.lists(messages, max_size=5) | anything_json


def answered_ids(frames: list[Any]) -> list[object]:
    return [answer["id"] for frame in frames for answer in (frame if isinstance(frame, list) else [frame])]


@given(st.binary() | st.text(st.characters(exclude_categories=())), st.sampled_from([None, "2025-03-26"]))
def test_no_text_raises(frame: str | bytes, version: str | None) -> None:
    peer = Peer(version)
    peer.say(frame)
    assert peer.ask("ping")["result"] == {}


@given(frames, st.sampled_from([None, "2025-03-26", "2025-11-25"]))
def test_no_json_raises_and_every_request_with_a_legal_id_is_answered_once(frame: Any, version: str | None) -> None:
    peer = Peer(version)
    answers = peer.say(frame)
    batch = isinstance(frame, list) and version == "2025-03-26"
    asked = Counter(
        repr(each["id"])
        for each in (frame if batch else [frame])
        if isinstance(each, dict)
        and each.get("jsonrpc") == "2.0"
        and type(each.get("method")) is str
        and type(each.get("id")) in (int, str)
    )
    got = Counter(repr(each) for each in answered_ids(answers) if each is not None)
    assert got == asked
    assert len(answers) <= 1  # one frame, one answer


@given(st.lists(frames, max_size=4))
def test_no_conversation_raises_and_every_answer_is_json_rpc(conversation: list[Any]) -> None:
    peer = Peer("2025-03-26")
    peer.holds = True
    answers = [answer for frame in conversation for answer in peer.say(frame)]
    answers += [answer for run in peer.held for answer in peer.finish(run)]
    for frame in answers:
        for answer in frame if isinstance(frame, list) else [frame]:
            assert answer["jsonrpc"] == "2.0"
            assert ("result" in answer) is not ("error" in answer)


# What one frame may ask for


MANY = ",".join(["1"] * 450_000)


@pytest.mark.parametrize(
    ("frame", "request_id"),
    [
        (f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"a":[{MANY}]}}}}', 7),
        (f'{{"id": "seven", "method":"tools/call","params":{{"id":8,"a":[{MANY}]}}}}', "seven"),
        (f'{{"method":"tools/call","params":{{"a":[{MANY}],"id":8}},"jsonrpc":"2.0","id":-7}}', -7),
        (f'{{"method":"tools/call","params":{{"a":[{MANY}],"id":8}} , "id" : 7 , "jsonrpc" : "2.0" }} '.encode(), 7),
        (f'{{"method":"x","id":7,"params":{{"a":[{MANY}],"id":8}}}}', None),
        (f"[{MANY}]", None),
    ],
)
def test_a_frame_with_too_many_values_is_refused_to_the_call_that_sent_it(
    frame: str | bytes, request_id: object
) -> None:
    """LIM-001: it is not parsed, but a client finds its call by the id."""
    (answer,) = Peer().say(frame)
    assert error(answer) == (request_id, -32600)
    assert "may have 400,000 keys and values" in answer["error"]["message"]


@pytest.mark.parametrize("size", [1_001, 100_000, 300_000])
def test_a_batch_of_so_many_messages_stopped_the_daemon(size: int) -> None:
    """LIM-001."""
    (answer,) = Peer("2025-03-26").say([1] * size)
    assert error(answer) == (None, -32600)
    assert answer["error"]["message"].endswith(f"a batch may have 1,000 messages, not {size:,}; send several")


def test_a_batch_whose_answers_are_larger_than_one_frame_gets_errors_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LIM-001."""
    monkeypatch.setattr("godot.mcp.jsonrpc.BATCH_ANSWER_MAX_BYTES", 1_000)
    (answers,) = Peer("2025-03-26").say([call(number, text="x" * 300) for number in range(9)])
    assert [each["id"] for each in answers] == list(range(9))
    assert ["error" in each for each in answers] == [False] * 2 + [True] * 7
    assert answers[-1]["error"]["message"] == "the answers of one batch may have 1,000 bytes; ask for this one alone"


@pytest.mark.parametrize("chars", [1_001, 1_000_000])
def test_an_id_of_a_request_is_not_sent_back_however_long_it_is(chars: int) -> None:
    """LIM-001."""
    answer = Peer().ask("ping", request_id="x" * chars)
    assert error(answer) == (None, -32600)
    assert f"1,000 characters, not {chars:,}" in answer["error"]["message"]
