"""Godot's HTTP port: health (MAINT-003), metrics (OBS-001), and entries for those who do not speak MCP.

Starlette on Hypercorn's HTTP/1.1 (`http_server`), in the nursery of the daemon. What is not an answer of ours ends
here: a bug in a handler is a 500 and a line for the operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

import attrs
import trio
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from godot import __version__
from godot.entries.entry import MAX_BATCH, by_line
from godot.json.structure import shown
from godot.json.text import NotJSON, loads, loads_as_said
from godot.json.weight import weigh
from godot.mcp.access import Gate, Refused
from godot.mcp.budget import Account, Pool
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.places import Places
from godot.mcp.toolbox import Role, Tool, caller
from godot.service.exposition import Registry
from godot.service.http_server import serve_app

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

Health = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]
"""Returns the HTTP status, and what to say."""

NOT_NOW: Final = "send it again later"
"""In the words of `ChannelFull`."""

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Godot</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}
code{{background:#eee;padding:.1em .3em}}@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}
code{{background:#333}}a{{color:#8bf}}}}</style>
<h1>{title}</h1>
<p>{what}</p>
<ul>{links}</ul>
<p>Version {version}.</p>
</html>
"""


@attrs.frozen
class Site:
    """What the port serves.

    :param health: for /readyz.
    :param registry: for /metrics.
    :param refresh: called before a scrape.
    :param log: takes entries in; None: there is no /v1/entries.
    :param report: gets an event (`bug`, `refused`), the peer's address, and the reason.
    :param bodies: bounds the bodies of all requests together, until they are answered.
    :param max_connections: beyond, a newcomer is refused with 503.
    :param prefix: of the settings that a refusal names.
    """

    title: str
    what: str
    gate: Gate
    health: Health
    registry: Registry
    refresh: Callable[[], Awaitable[None]]
    report: Callable[[str, str, str], None]
    log: Tool | None = None
    max_body_bytes: int = 16 * 1024 * 1024
    bodies: Pool = attrs.Factory(Pool)
    max_connections: int = 250
    prefix: str = "GODOT"


async def serve_http(
    site: Site, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests until cancelled; what is under way then has `GRACE_S` to end."""
    places = Places(site.max_connections, f"{site.prefix}_MAX_CONNECTIONS", site.report)
    await serve_app(_app(site), places, listeners, task_status=task_status)


def _app(site: Site) -> ASGIApp:
    async def livez(request: Request) -> Response:
        _check_host(site, request)
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        _check_host(site, request)
        code, state = await site.health()
        return JSONResponse(state, code)

    async def metrics(request: Request) -> Response:
        _admit(site, request, "read")
        await site.refresh()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))

        def note(bug: Exception) -> None:
            site.report("bug", _peer(request.scope), f"/metrics: {bug!r}")

        return Response(site.registry.expose(encode, note), media_type=content_type)

    async def page(request: Request) -> Response:
        _admit(site, request, None)
        links = ["/livez", "/readyz", "/metrics"]
        items = "".join(f'<li><a href="{each}"><code>{each}</code></a></li>' for each in links)
        if site.log is not None:
            items += "<li><code>POST /v1/entries</code>: a JSON object a line, each an entry</li>"
        return HTMLResponse(_PAGE.format(title=site.title, what=site.what, links=items, version=__version__))

    async def refused(_: Request, exc: Exception) -> Response:
        refusal = cast("Refused", exc)  # for no other it is called
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else {}
        return PlainTextResponse(f"{refusal.reason}\n", refusal.status, headers)

    routes = [
        Route("/", page),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]
    if (log := site.log) is not None:

        async def entries(request: Request) -> Response:
            _admit(site, request, "write")
            return await _take_in(log, request, site)

        routes.append(Route("/v1/entries", entries, methods=["POST"]))
    starlette = Starlette(routes=routes, exception_handlers={Refused: refused})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            if scope["type"] == "http" and (misframed := _misframed(scope)) is not None:
                await misframed(scope, receive, send)
            else:
                await starlette(scope, receive, watch)
        except ClientDisconnect:
            pass  # nobody is there to be answered, and nothing of it was taken in
        except Exception as exc:  # noqa: BLE001 - the top of the handler of a request
            site.report("bug", _peer(scope), f"{scope.get('path', '')}: {exc!r}")
            if scope["type"] == "http" and not started:
                await PlainTextResponse("a bug of ours; it is in the log of the daemon\n", 500)(scope, receive, send)

    return app


def _misframed(scope: Scope) -> Response | None:
    """Refuse a request that somebody on its way here may read otherwise than we do (RFC 9112, 6.1)."""
    headers = {"Connection": "close"}
    if scope["http_version"] not in ("1.0", "1.1"):
        return PlainTextResponse("this server speaks HTTP/1.1\n", 505, headers)
    if {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in scope["headers"]}:
        return PlainTextResponse("Content-Length and Transfer-Encoding exclude each other\n", 400, headers)
    return None


def _peer(scope: Scope) -> str:
    host, port = scope.get("client") or ("nobody", 0)
    return f"{host}:{port}"


def _check_host(site: Site, request: Request) -> None:
    """Check by what name health is asked for. Every browser sends one; an old health checker may send none.

    :raises Refused: a foreign one.
    """
    if (host := request.headers.get("host")) is None:
        return
    try:
        site.gate.check_host(host)
    except Refused as exc:
        site.report("refused", _peer(request.scope), exc.reason)
        raise


def _admit(site: Site, request: Request, role: Role | None) -> None:
    """Check who asks, as on the MCP port.

    :param role: that it takes, where tokens are needed; None: anybody may see it.
    :raises Refused: he may not.
    """
    peer = _peer(request.scope)
    try:
        if role is None:
            attrs.evolve(site.gate, tokens={}).admit(request.headers.get("host", ""), request.headers.raw)
            return
        roles = site.gate.admit(request.headers.get("host", ""), request.headers.raw)
        if role not in roles and "admin" not in roles:
            raise Refused(403, f"this takes the role {role}; this token has {', '.join(sorted(roles))}")
    except Refused as exc:
        site.report("refused", peer, exc.reason)
        raise
    caller.set(peer)


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
