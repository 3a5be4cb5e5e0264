"""`godot demo`: two requests through four components, as they log them at TRACE, one of which goes wrong.

The second one is what Godot was made for: a tool that the relay lists and that nobody can call. What its server
said in `tools/list` differs from what the others said, and the trace shows it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import trio

from godot.cli.daemon import Daemon, Work, complain, write
from godot.toolnames import LOG_BATCH, QUERY

STORED_S: Final = 5.0
"""How long the demo waits until its entries can be found."""

Row = tuple[float, str, str, str, dict[str, Any]]
"""Milliseconds from the beginning, component, level, message, data."""

_READ: Final = {"name": "gates_read_file", "arguments": {"path": "notes/agenda.md"}}
_DRAFT: Final = {"name": "fiedler_draft", "arguments": {"prompt": "Summarise the agenda"}}
_SCHEMA: Final = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def _request(number: int, method: str, params: dict[str, Any] | None = None, **side: str) -> dict[str, Any]:
    return {**side, "jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


def _result(number: int, result: dict[str, Any], **side: str) -> dict[str, Any]:
    return {**side, "jsonrpc": "2.0", "id": number, "result": result}


def _text(text: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def good() -> list[Row]:
    """Return what is logged of a call that goes well."""
    find = {"name": "dewey_find_document", "arguments": {"title": "agenda"}}
    return [
        (0.0, "relay", "INFO", "a client calls gates_read_file", {}),
        (0.4, "relay", "TRACE", "forwarded", _request(7, "tools/call", _READ, to="gates")),
        (1.9, "gates", "TRACE", "received", _request(7, "tools/call", _READ, **{"from": "relay"})),
        (2.3, "gates", "DEBUG", "agenda.md is not in the cache", {"cache": "miss"}),
        (2.8, "gates", "TRACE", "asks for the document", _request(31, "tools/call", find, to="dewey")),
        (4.1, "dewey", "TRACE", "received", _request(31, "tools/call", find, **{"from": "gates"})),
        (4.6, "dewey", "DEBUG", "SELECT took 11.2 ms, 1 row", {"rows": 1, "ms": 11.2}),
        (16.9, "dewey", "TRACE", "answered", _result(31, _text("# Agenda"), to="gates")),
        (18.0, "gates", "TRACE", "got the document", _result(31, _text("# Agenda"), **{"from": "dewey"})),
        (18.8, "gates", "TRACE", "answered", _result(7, _text("# Agenda"), to="relay")),
        (20.2, "relay", "TRACE", "got the answer", _result(7, _text("# Agenda"), **{"from": "gates"})),
        (20.5, "relay", "INFO", "gates_read_file took 20.5 ms", {"ms": 20.5}),
    ]


def bad() -> list[Row]:
    """Return what is logged when a tool is listed and cannot be called."""
    of_gates = {"tools": [{"name": "gates_read_file", "description": "Read a file", "inputSchema": _SCHEMA}]}
    of_fiedler = {
        "tools": [{"name": "fiedler_draft", "description": "Draft a text", "input_schema": {"prompt": "string"}}]
    }
    merged = {"tools": of_gates["tools"] + of_fiedler["tools"]}
    refused = _text("No such tool available: fiedler_draft", is_error=True)
    return [
        (0.0, "relay", "INFO", "a client connects and asks for the tools", {}),
        (0.3, "relay", "TRACE", "asks", _request(11, "tools/list", to="gates")),
        (0.4, "relay", "TRACE", "asks", _request(12, "tools/list", to="fiedler")),
        (1.6, "gates", "TRACE", "answers", _result(11, of_gates, to="relay")),
        (2.2, "relay", "TRACE", "got tools", _result(11, of_gates, **{"from": "gates"})),
        (7.7, "fiedler", "TRACE", "answers", _result(12, of_fiedler, to="relay")),
        (8.4, "relay", "TRACE", "got tools", _result(12, of_fiedler, **{"from": "fiedler"})),
        (8.6, "relay", "INFO", "2 tools are listed", {"tools": [tool["name"] for tool in merged["tools"]]}),
        (412.0, "relay", "TRACE", "the client calls", _request(13, "tools/call", _DRAFT, **{"from": "client"})),
        (
            412.2,
            "relay",
            "WARN",
            "fiedler_draft has no inputSchema, so it was not registered",
            {"tool": "fiedler_draft"},
        ),
        (412.5, "relay", "TRACE", "answered", _result(13, refused, to="client")),
        (412.6, "relay", "ERROR", "No such tool available: fiedler_draft", {"tool": "fiedler_draft"}),
    ]


def run_demo() -> Work:
    """Log both, wait until they can be found, and say how to look at them."""

    async def work(daemon: Daemon) -> int:
        now = datetime.now(UTC)
        traces = str(uuid4()), str(uuid4())
        logs = []
        for trace, rows, before_s in ((traces[0], good(), 1.0), (traces[1], bad(), 0.5)):
            for ms, component, level, message, data in rows:
                at = now - timedelta(seconds=before_s) + timedelta(milliseconds=ms)
                logs.append({
                    "component": component, "level": level, "message": message, "trace_id": trace,
                    "data": data or None, "created_at": at.isoformat(),
                })  # fmt: skip
        done = await daemon.ask(LOG_BATCH, logs=logs, ack="durable")
        with trio.move_on_after(STORED_S) as patience:
            while not all([await _is_stored(daemon, trace) for trace in traces]):  # noqa: ASYNC110 - it is over there
                await trio.sleep(0.05)
        if patience.cancelled_caught:
            complain("they are on disk, and not stored yet: Dewey may be away (godot status)")
        write(f"{done['accepted']} entries of 4 components were logged. See what happened:")
        write("")
        write(f"  godot trace {traces[0]}    a call through three servers")
        write(f"  godot trace {traces[1]}    a tool that is listed and cannot be called")
        write("")
        write("What two servers said in tools/list, side by side:")
        write("")
        write(f"""  godot query -t {traces[1]} -c gates -c fiedler --data '{{"jsonrpc": "2.0"}}' -o json""")
        return 0

    return work


async def _is_stored(daemon: Daemon, trace: str) -> bool:
    return bool((await daemon.ask(QUERY, trace_id=trace, limit=1))["count"])
