"""Entries over HTTP, for those who do not speak MCP: a JSON object a line (NDJSON)."""

from __future__ import annotations

from typing import Any, Final

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from godot.entries.entry import MAX_BATCH
from godot.intake.accept import Accepted, Door, Filtered, NotWritten, Outcome, Rejected, TryAgain, Written
from godot.json.structure import shown
from godot.json.text import NotJSON, loads_as_said
from godot.json.weight import weigh
from godot.mcp.budget import Account
from godot.mcp.heavy import off_the_loop
from godot.service.site import Site, Way, peer_of
from godot.settings import Ack

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


async def _take_in(door: Door, request: Request, site: Site) -> Response:
    """Take in entries, one JSON object a line; each is judged for itself, as by `logger_log_batch`."""
    ack: Ack | None
    match request.query_params.get("ack"):
        case None | "queued" | "durable" as ack:
            pass
        case other:
            return _problem(400, f"ack: queued or durable, not {shown(other)}")
    largest = site.max_body_bytes
    told = request.headers.get("content-length", "")
    size = min(int(told), largest) if told.isdecimal() else largest
    claim = None
    with trio.move_on_after(ROOM_S):
        claim = await Account(site.bodies, largest).claim(size)
    if claim is None:
        return _problem(503, f"no room for the body beside those of others; see {site.prefix}_MAX_BYTES_IN_FLIGHT")
    try:
        return await _take_lines(door, request, ack, site)
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
                site.report("refused", peer_of(request.scope), f"POST {request.url.path}: {reason}")
                return _problem(413, reason)
    if patience.cancelled_caught:
        return _problem(408, "the request took too long to be told; nothing was taken in")
    return bytes(body)


async def _take_lines(door: Door, request: Request, ack: Ack | None, site: Site) -> Response:
    body = await _read_body(request, site)
    if isinstance(body, Response):
        return body
    return await _take_in_lines(door, body, ack)


async def _take_in_lines(door: Door, body: bytes, ack: Ack | None) -> Response:
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
            if (failure := await taken.send(door, batch, size, ack)) is not None:
                return failure
            batch, size = [], 0
        if taken.has_enough:
            break
    if batch and (failure := await taken.send(door, batch, size, ack)) is not None:
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
        if len(self.rejected) < REJECTED_MAX:
            self.rejected.append({"line": line, "error": error})
        else:
            self.further_rejected += 1

    @property
    def has_enough(self) -> bool:
        """Whether so many lines were rejected that the rest is not worth reading."""
        return len(self.rejected) + self.further_rejected >= REJECTED_STOP

    async def send(self, door: Door, batch: list[tuple[int, Any]], size: int, ack: Ack | None) -> Response | None:
        """Hand a batch of so many bytes on; return a response when there is no use in going on."""
        receipt = door.receipt(ack)
        outcomes = await door.accept_many([value for _, value in batch], weight=size, receipt=receipt)
        accepted = sum(isinstance(each, Accepted) for each in outcomes)
        if receipt is not None and accepted:
            written = await door.written(receipt, outcomes)
            if isinstance(written, NotWritten):
                again = "send the lines again, with ids of your own, so that what arrived is not stored twice"
                return _problem(503, f"{written.reason}; {again}", **self.counts())
            self._note(written)
        for (line, _), outcome in zip(batch, outcomes, strict=True):
            self._tally(line, outcome)
        return None

    def _note(self, written: Written) -> None:
        if written.weakness is None:
            self.status = self.status or "durable"
        elif self.status != "queued":
            self.status = "queued"
            self.warnings.insert(0, f"not durable: {written.weakness}")

    def _tally(self, line: int, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                self.accepted += 1
            case Filtered():
                self.filtered += 1
            case TryAgain(reason):
                self.is_full = True
                self.reject(line, reason)
            case Rejected(reason):
                self.reject(line, reason)
        room = max(0, REJECTED_MAX - len(self.warnings))
        self.warnings += [f"line {line}: {warning}" for warning in outcome.warnings[:room]]

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


def ndjson_way(door: Door) -> Way:
    """Return the way in for entries, one JSON object a line.

    :param door: takes the entries in.
    """

    async def answer(request: Request, site: Site) -> Response:
        return await _take_in(door, request, site)

    return Way("POST", "/v1/entries", "write", "a JSON object a line, each an entry", answer)
