"""MCP as a server speaks it on one connection: a state machine with no socket in sight.

Rule 1: everything that decides what a frame means, or what a frame of ours looks like, is here, or in `jsonrpc` and
`envelope`, which know nothing of a connection.
Rule 2: nothing here waits. `receive` takes a frame and returns what to do; `answer` takes a tool's answer and returns
the frame to send.

All five protocol versions are served at the same time, request by request. A request that names a protocol version in
its `_meta` follows 2026-07-28, which is stateless. Every other request follows the version that `initialize` agreed on.
Without `initialize` it follows 2024-11-05, because deployed clients send `tools/call` first (GOD-000). So the state of
a connection is the agreed version and the calls in flight, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import attrs

from godot.mcp.envelope import META, MODERN_VERSION, check_envelope, trace_id_of
from godot.mcp.errors import UnknownTool
from godot.mcp.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Batch,
    Parsed,
    RequestError,
    RequestId,
    failure,
    parse,
    success,
    to_frame,
)
from godot.mcp.toolbox import ROLES, Answer, Role, Tool, Toolbox

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""The versions that begin with `initialize`, oldest first."""

UNASKED_VERSION: Final = LEGACY_VERSIONS[0]
"""The version of a request that names none, before any `initialize`."""

BATCH_VERSION: Final = "2025-03-26"
"""The only version with JSON-RPC batches."""

STRUCTURED_SINCE: Final = "2025-06-18"

LIST_TTL_MS: Final = 3_600_000
"""How long a client may keep the list of tools: only a release changes it."""

MAX_BATCH_MESSAGES: Final = 1_000
"""Messages of one JSON-RPC batch."""

MAX_ID_CHARS: Final = 1_000


@attrs.frozen
class ServerInfo:
    """How a server introduces itself.

    :param instructions: tell the agent that uses it what this server is for.
    """

    name: str
    version: str
    instructions: str


@attrs.define(eq=False)
class Call:
    """A tool call in flight.

    :param version: the protocol version that its answer follows.
    :param trace_id: from its `_meta.traceparent`.
    """

    id: RequestId
    tool: Tool
    arguments: Mapping[str, Any]
    version: str
    batch: Batch | None = None
    trace_id: str | None = None
    cancelled: bool = False


@attrs.frozen
class Send:
    """Send this frame."""

    frame: str


@attrs.frozen
class Run:
    """Run this call, and pass the tool's answer to `Session.answer`."""

    call: Call


@attrs.frozen
class Stop:
    """The client has cancelled this call: stop working on it; nothing is sent for it."""

    call: Call


Event: TypeAlias = Send | Run | Stop


class Session:
    """Our side of the conversation on one connection.

    :param toolbox: the tools that are listed and called.
    :param roles: of the client; a tool that needs another role is neither listed nor called.
    :param on_refusal: called with the reason when the client calls such a tool.
    :param offered: experimental capabilities, each with a function that returns its value.
    """

    def __init__(
        self,
        server: ServerInfo,
        toolbox: Toolbox,
        roles: frozenset[Role] = ROLES,
        on_refusal: Callable[[str], None] | None = None,
        offered: Mapping[str, Callable[[], Mapping[str, Any]]] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._toolbox = toolbox
        self._roles = roles
        self._on_refusal = on_refusal
        # A client with fewer roles sees fewer tools, so its list is for its token only.
        self._cache_scope = "public" if roles == ROLES else "private"
        self._agreed: str | None = None
        self._in_flight: dict[RequestId, Call] = {}
        self._offered = offered
        self.told: dict[str, Mapping[str, Any]] = {}
        """Experimental capabilities that the client has asked for, each with the value that it was told."""

    def notification(self, capability: str, value: Mapping[str, Any]) -> str:
        """Return the frame that tells the new value of an experimental capability."""
        return to_frame({"jsonrpc": "2.0", "method": f"notifications/{capability}", "params": value})

    def receive(self, frame: str | bytes) -> list[Event]:
        """Take in one frame; return what to do, in order.

        No frame makes it raise: a frame that is not understood is answered with an error.
        """
        return self.take(parse(frame))

    def take(self, parsed: Parsed) -> list[Event]:
        """Take in one parsed frame."""
        if parsed.fault is not None:
            return [Send(parsed.fault)]
        if isinstance(parsed.message, list):
            return self._receive_batch(parsed.message)
        return self._receive_message(parsed.message, None)

    def answer(self, call: Call, answer: Answer) -> str | None:
        """Return the frame that answers a call.

        None when there is nothing to send: the call was cancelled, or others of its batch are still open.
        """
        result: dict[str, Any] = {"content": [{"type": "text", "text": answer.json}], "isError": answer.is_error}
        if answer.value is not None and call.version >= STRUCTURED_SINCE:
            result["structuredContent"] = answer.value
        return self._end(call, success(call.id, self._enveloped(result) if call.version == MODERN_VERSION else result))

    def fail(self, call: Call) -> str | None:
        """Return the frame that answers a call whose tool has a bug, without describing it. None as in `answer`."""
        text = f"Internal error: a bug in {call.tool.name}; the log of the {self._server.name} server has it"
        return self._end(call, failure(call.id, INTERNAL_ERROR, text))

    def _end(self, call: Call, response: dict[str, Any]) -> str | None:
        if call.cancelled:
            return None
        if self._in_flight.get(call.id) is call:  # a later call may have the same id: some clients do not count
            del self._in_flight[call.id]
        if call.batch is None:
            return to_frame(response)
        call.batch.open -= 1
        call.batch.add(response)
        return call.batch.frame()

    def _receive_batch(self, messages: list[Any]) -> list[Event]:
        if self._agreed != BATCH_VERSION or not messages:
            return self._refuse(None, f"batches belong to MCP {BATCH_VERSION} only")
        if len(messages) > MAX_BATCH_MESSAGES:
            return self._refuse(
                None, f"a batch may have {MAX_BATCH_MESSAGES:,} messages, not {len(messages):,}; send several"
            )
        batch = Batch()
        events: list[Event] = []
        for message in messages:
            events += self._receive_message(message, batch)
        if (frame := batch.frame()) is not None:
            events.append(Send(frame))
        return events

    def _receive_message(self, message: Any, batch: Batch | None) -> list[Event]:
        if not isinstance(message, dict):
            return self._refuse(batch, "not an object")
        if "method" not in message and ("result" in message or "error" in message):
            return []  # we never ask a client anything
        method = message.get("method")
        if message.get("jsonrpc") != "2.0" or type(method) is not str:
            return self._refuse(batch, '"jsonrpc" must be "2.0" and "method" a string')
        if "id" not in message:
            return self._receive_notification(method, message.get("params"), batch)
        request_id = message["id"]
        if type(request_id) is not int and type(request_id) is not str:
            return self._refuse(batch, '"id" must be a string or an integer')
        if type(request_id) is str and len(request_id) > MAX_ID_CHARS:
            return self._refuse(batch, f'"id" may have {MAX_ID_CHARS:,} characters, not {len(request_id):,}')
        try:
            answered = self._receive_request(request_id, method, message.get("params", {}), batch)
        except RequestError as refused:
            return self._reply(batch, {"jsonrpc": "2.0", "id": request_id, "error": refused.error})
        if isinstance(answered, Call):
            self._in_flight[request_id] = answered
            if batch is not None:
                batch.open += 1
            return [Run(answered)]
        return self._reply(batch, success(request_id, answered))

    def _reply(self, batch: Batch | None, response: dict[str, Any]) -> list[Event]:
        if batch is None:
            return [Send(to_frame(response))]
        batch.add(response)
        return []

    def _refuse(self, batch: Batch | None, reason: str) -> list[Event]:
        return self._reply(batch, failure(None, INVALID_REQUEST, f"Invalid Request: {reason}"))

    def _receive_notification(self, method: str, params: object, batch: Batch | None) -> list[Event]:
        if method != "notifications/cancelled" or not isinstance(params, dict):
            return []  # `initialized`, progress and unknown notifications ask for nothing
        request_id = params.get("requestId")
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            return []
        call = self._in_flight.pop(request_id, None)
        if call is None:
            return []
        call.cancelled = True
        events: list[Event] = [Stop(call)]
        if call.batch is not None:
            call.batch.open -= 1
            if call.batch is not batch and (frame := call.batch.frame()) is not None:
                events.append(Send(frame))
        return events

    def _receive_request(
        self, request_id: RequestId, method: str, params: object, batch: Batch | None
    ) -> dict[str, Any] | Call:
        """Return the result, or the call that will lead to one."""
        if params is None:
            params = {}
        if not isinstance(params, dict):
            raise RequestError(INVALID_PARAMS, 'Invalid params: "params" must be an object')
        meta = params.get("_meta")
        if isinstance(meta, dict) and f"{META}protocolVersion" in meta:
            check_envelope(meta)
            return self._receive_modern(request_id, method, params, batch)
        match method:
            case "initialize":
                return self._initialize(params, batch)
            case "ping":
                return {}
            case "tools/list":
                return self._list(params)
            case "tools/call":
                return self._call(request_id, params, self._agreed or UNASKED_VERSION, batch)
        raise RequestError(METHOD_NOT_FOUND, f"Method not found: {method:.200}")

    def _receive_modern(
        self, request_id: RequestId, method: str, params: dict[str, Any], batch: Batch | None
    ) -> dict[str, Any] | Call:
        match method:
            case "server/discover":
                return self._enveloped(
                    {
                        "supportedVersions": [MODERN_VERSION],
                        "capabilities": {"tools": {}},
                        "instructions": self._server.instructions,
                        "ttlMs": LIST_TTL_MS,
                        "cacheScope": self._cache_scope,
                    }
                )
            case "tools/list":
                return self._enveloped(self._list(params) | {"ttlMs": LIST_TTL_MS, "cacheScope": self._cache_scope})
            case "tools/call":
                return self._call(request_id, params, MODERN_VERSION, batch)
        raise RequestError(METHOD_NOT_FOUND, f"Method not found: {method:.200}")

    def _initialize(self, params: dict[str, Any], batch: Batch | None) -> dict[str, Any]:
        if batch is not None:
            raise RequestError(INVALID_REQUEST, "Invalid Request: initialize must not be part of a batch")
        asked = params.get("protocolVersion")
        self._agreed = asked if asked in LEGACY_VERSIONS else LEGACY_VERSIONS[-1]
        capabilities: dict[str, Any] = {"tools": {}}
        wanted = params.get("capabilities")
        experimental = wanted.get("experimental") if isinstance(wanted, dict) else None
        if isinstance(experimental, dict):
            self.told = {name: value() for name, value in self._offered.items() if name in experimental}
            if self.told:
                capabilities["experimental"] = self.told
        return {
            "protocolVersion": self._agreed,
            "capabilities": capabilities,
            "serverInfo": {"name": self._server.name, "version": self._server.version},
            "instructions": self._server.instructions,
        }

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("cursor") is not None:
            raise RequestError(
                INVALID_PARAMS, "Invalid params: there is one page of tools, and no cursor leads to another"
            )
        return {"tools": self._toolbox.listing(self._roles)}

    def _call(self, request_id: RequestId, params: dict[str, Any], version: str, batch: Batch | None) -> Call:
        name = params.get("name")
        if type(name) is not str:
            raise RequestError(INVALID_PARAMS, 'Invalid params: "name" must be the name of a tool')
        arguments = params.get("arguments")
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise RequestError(INVALID_PARAMS, 'Invalid params: "arguments" must be an object')
        try:
            tool = self._toolbox.find(name)
        except UnknownTool as exc:
            raise RequestError(INVALID_PARAMS, str(exc)) from None
        if not tool.allowed(self._roles):
            reason = f"{tool.name} needs the role {tool.role}; this token has {', '.join(sorted(self._roles))}"
            if self._on_refusal is not None:
                self._on_refusal(reason)
            raise RequestError(INVALID_PARAMS, reason)
        meta = params.get("_meta")
        trace_id = trace_id_of(meta.get("traceparent")) if isinstance(meta, dict) else None
        return Call(request_id, tool, arguments, version, batch, trace_id)

    def _enveloped(self, result: dict[str, Any]) -> dict[str, Any]:
        """Add what 2026-07-28 requires of every result."""
        about = {"name": self._server.name, "version": self._server.version}
        return {"resultType": "complete", **result, "_meta": {f"{META}serverInfo": about}}
