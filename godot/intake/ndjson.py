"""Entries over HTTP, for those who do not speak MCP: a JSON object a line (NDJSON)."""

from __future__ import annotations

from typing import Any, Final

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from godot.entries.entry import MAX_BATCH, by_line
from godot.json.structure import shown
from godot.json.text import NotJSON, loads, loads_as_said
from godot.json.weight import weigh
from godot.mcp.budget import Account
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.toolbox import Tool
from godot.service.site import Site, Way, _peer

BODY_S: Final = 30.0
"""How long the body of a request may take to be told."""

ROOM_S: Final = 5.0
"""How long a request waits for room for its body before it is refused."""

REJECTED_MAX: Final = 100
"""Lines that an answer names; further ones are only counted."""

REJECTED_STOP: Final = 1_000
"""Lines that are rejected until the rest of a request is left unread: whatever it is, it is no list of entries."""

LINES_MAX: Final = 500_000
"""In one request."""

LINES_PIECE: Final = 100
"""Lines that are read before others get their turn."""

BATCH_BYTES: Final = 8 * 1024 * 1024
"""Lines that are handed on at once; they may have as many keys and values as one message."""

RETRY_AFTER_S: Final = 1

NOT_NOW: Final = "send it again later"
"""In the words of `ChannelFull`."""


async def _take_in(log: Tool, request: Request, site: Site) -> Response:
    """Take in entries, one JSON object a line; each is judged for itself, as by `logger_log_batch`."""
    ack = request.query_params.get("ack")
    if ack not in (None, "queued", "durable"):
        return _problem(400, f"ack: queued or durable, not {shown(ack)}")
    largest = site.max_body_bytes
    told = request.headers.get("content-length", "")
    size = min(int(told), largest) if told.isdecimal() else largest
    claim = None
    with trio.move_on_after(ROOM_S):
        claim = await Account(site.bodies, largest).claim(size)
    if claim is None:
        return _problem(503, f"no room for the body beside those of others; see {site.prefix}_MAX_BYTES_IN_FLIGHT")
    try:
        return await _take_lines(log, request, ack, site)
    finally:
        claim.release()


async def _read_body(request: Request, site: Site) -> bytes | Response:
    """Return the body, or the refusal of it."""
    body = bytearray()
    with site.bodies.patience(trio.current_time() + BODY_S) as patience:
        async for chunk in request.stream():
            body += chunk
            if len(body) > site.max_body_bytes:
                setting = f"{site.prefix}_MAX_MESSAGE_BYTES"
                reason = f"at most {site.max_body_bytes:,} bytes in one request ({setting}); send several"
                site.report("refused", _peer(request.scope), f"POST {request.url.path}: {reason}")
                return _problem(413, reason)
    if patience.cancelled_caught:
        return _problem(408, "the request took too long to be told; nothing was taken in")
    return bytes(body)


async def _take_lines(log: Tool, request: Request, ack: str | None, site: Site) -> Response:
    body = await _read_body(request, site)
    if isinstance(body, Response):
        return body
    return await _take_in_lines(log, body, ack)


async def _take_in_lines(log: Tool, body: bytes, ack: str | None) -> Response:
    if (lines := body.count(b"\n")) > LINES_MAX:
        return _problem(413, f"at most {LINES_MAX:,} lines in one request, not {lines:,}; send several")
    taken = _Taken()
    batch: list[tuple[int, Any]] = []
    size = start = number = 0
    while start < len(body):
        end = body.find(b"\n", start)
        line = body[start : end if end >= 0 else len(body)]
        start += len(line) + 1
        number += 1
        if number % LINES_PIECE == 0:
            await trio.lowlevel.checkpoint()
        if not line.strip():
            continue
        try:
            batch.append((number, await off_the_loop(weight := weigh(line), loads_as_said, line)))
            size += weight
        except NotJSON as exc:
            taken.reject(number, str(exc))
        if len(batch) == MAX_BATCH or size > BATCH_BYTES:
            if (failure := await taken.send(log, batch, size, ack)) is not None:
                return failure
            batch, size = [], 0
        if taken.has_enough:
            break
    if batch and (failure := await taken.send(log, batch, size, ack)) is not None:
        return failure
    if taken.has_enough:
        reason = f"{REJECTED_STOP:,} lines were rejected, the last of them line {number:,}: what follows was not read"
        return _problem(400, reason, **taken.counts())
    return taken.response()


@attrs.define
class _Taken:
    """What became of the lines of a request so far."""

    accepted: int = 0
    filtered: int = 0
    rejected: list[dict[str, Any]] = attrs.Factory(list)
    further_rejected: int = 0
    warnings: list[str] = attrs.Factory(list)
    is_full: bool = False
    status: str | None = None
    """Of those who asked for `durable`: `queued` when that is not true of one batch."""

    def reject(self, line: int, error: str) -> None:
        self.is_full = self.is_full or NOT_NOW in error
        if len(self.rejected) < REJECTED_MAX:
            self.rejected.append({"line": line, "error": error})
        else:
            self.further_rejected += 1

    @property
    def has_enough(self) -> bool:
        """Whether so many lines were rejected that the rest is not worth reading."""
        return len(self.rejected) + self.further_rejected >= REJECTED_STOP

    async def send(self, log: Tool, batch: list[tuple[int, Any]], size: int, ack: str | None) -> Response | None:
        """Hand a batch of so many bytes on; return a response when there is no use in going on."""
        message_weight.set(size)
        answer = await log.call({"logs": [value for _, value in batch]} | ({} if ack is None else {"ack": ack}))
        if answer.kind is not None:
            return _problem(503, answer.json, **self.counts())
        value = loads(answer.json)
        self.accepted += value["accepted"]
        self.filtered += value["filtered"]
        for each in value["rejected"]:
            self.reject(batch[each["index"]][0], each["error"])
        if self.status != "queued":
            self.status = value.get("status")
        lines = [number for number, _ in batch]
        self.warnings += [by_line(each, lines) for each in value["warnings"][: REJECTED_MAX - len(self.warnings)]]
        return None

    def response(self) -> Response:
        """Answer: 200 also when single lines were rejected, 400 when there was no entry among them."""
        if self.is_full:
            return _problem(503, "not all was accepted: send the rejected lines again later", **self.counts())
        code = 400 if self.rejected and not (self.accepted or self.filtered) else 200
        return JSONResponse(self.counts(), code)

    def counts(self) -> dict[str, Any]:
        """Return what is told of it."""
        found = attrs.asdict(self)
        del found["is_full"]
        if self.status is None:
            del found["status"]
        return found


def _problem(code: int, error: str, **more: Any) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if code == 503 else {}
    return JSONResponse({"error": error} | more, code, headers)


def ndjson_way(log: Tool) -> Way:
    """Return the way in for entries, one JSON object a line.

    :param log: takes a batch in, as `logger_log_batch` does.
    """

    async def answer(request: Request, site: Site) -> Response:
        return await _take_in(log, request, site)

    return Way("POST", "/v1/entries", "write", "a JSON object a line, each an entry", answer)
