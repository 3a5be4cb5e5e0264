"""The HTTP port of a daemon: health (MAINT-003), metrics (OBS-001), and the ways that it is given.

It is Starlette on Hypercorn's protocol, in the nursery of the daemon. No error leaves this module: a bug in a handler
becomes a 500 and a line for the operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
from godot.mcp.access import Gate, PeerRefused
from godot.mcp.budget import Pool
from godot.mcp.places import Places
from godot.mcp.toolbox import Role, caller
from godot.service.exposition import Registry
from godot.service.http_server import serve_app

Health = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]
"""Returns the HTTP status and the body."""

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
class Way:
    """A path of the site, beside those of every daemon.

    :param role: that a client needs, if there are tokens.
    :param about: its purpose, in a word, for the front page.
    """

    method: str
    path: str
    role: Role
    about: str
    answer: Callable[[Request, Site], Awaitable[Response]]


@attrs.frozen
class Site:
    """The content of the port, and its limits.

    :param health: for /readyz.
    :param registry: for /metrics.
    :param refresh: called before a scrape.
    :param ways: the paths beside health and metrics.
    :param report: called with an event (`bug`, `refused`), the peer's address, and the reason.
    :param bodies: bounds the bodies of all requests together, until they are answered.
    :param max_connections: at this number new connections are refused with 503.
    :param prefix: of the settings that refusals name.
    """

    title: str
    what: str
    gate: Gate
    health: Health
    registry: Registry
    refresh: Callable[[], Awaitable[None]]
    report: Callable[[str, str, str], None]
    ways: Sequence[Way] = ()
    max_body_bytes: int = 16 * 1024 * 1024
    bodies: Pool = attrs.Factory(Pool)
    max_connections: int = 250
    prefix: str = "GODOT"


async def serve_http(
    site: Site, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests until cancelled; requests under way then have `GRACE_S` to end."""
    places = Places(site.max_connections, f"{site.prefix}_MAX_CONNECTIONS", site.report)
    await serve_app(_app(site), places, listeners, task_status=task_status)


def _app(site: Site) -> ASGIApp:
    starlette = Starlette(routes=_routes(site), exception_handlers={PeerRefused: _refusal})

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
            pass  # the client is gone, and nothing of its request was taken in
        except Exception as exc:  # noqa: BLE001 - the top of the handler of a request
            site.report("bug", peer_of(scope), f"{scope.get('path', '')}: {exc!r}")
            if scope["type"] == "http" and not started:
                await PlainTextResponse("a bug of ours; it is in the log of the daemon\n", 500)(scope, receive, send)

    return app


def _routes(site: Site) -> list[Route]:
    async def livez(request: Request) -> Response:
        _check_host(site, request)
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        _check_host(site, request)
        code, state = await site.health()
        return JSONResponse(state, code)

    async def metrics(request: Request) -> Response:
        _check_access(site, request, "read")
        await site.refresh()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))

        def note(bug: Exception) -> None:
            site.report("bug", peer_of(request.scope), f"/metrics: {bug!r}")

        return Response(site.registry.expose(encode, note), media_type=content_type)

    async def page(request: Request) -> Response:
        _check_access(site, request, None)
        links = ["/livez", "/readyz", "/metrics"]
        items = "".join(f'<li><a href="{each}"><code>{each}</code></a></li>' for each in links)
        items += "".join(f"<li><code>{each.method} {each.path}</code>: {each.about}</li>" for each in site.ways)
        return HTMLResponse(_PAGE.format(title=site.title, what=site.what, links=items, version=__version__))

    def opened(way: Way) -> Route:
        async def answer(request: Request) -> Response:
            _check_access(site, request, way.role)
            return await way.answer(request, site)

        return Route(way.path, answer, methods=[way.method])

    return [
        Route("/", page),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        *map(opened, site.ways),
    ]


async def _refusal(_: Request, exc: Exception) -> Response:
    refusal = cast("PeerRefused", exc)  # it is called for no other
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else {}
    return PlainTextResponse(f"{refusal.reason}\n", refusal.status, headers)


def _misframed(scope: Scope) -> Response | None:
    """Refuse a request that a proxy in front may read differently than we do (RFC 9112, 6.1)."""
    headers = {"Connection": "close"}
    if scope["http_version"] not in ("1.0", "1.1"):
        return PlainTextResponse("this server speaks HTTP/1.1\n", 505, headers)
    if {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in scope["headers"]}:
        return PlainTextResponse("Content-Length and Transfer-Encoding exclude each other\n", 400, headers)
    return None


def peer_of(scope: Scope) -> str:
    host, port = scope.get("client") or ("nobody", 0)
    return f"{host}:{port}"


def _check_host(site: Site, request: Request) -> None:
    """Check the `Host` of a request for health. Every browser sends one; an old health checker may send none.

    :raises PeerRefused: it is a foreign name.
    """
    if (host := request.headers.get("host")) is None:
        return
    try:
        site.gate.check_host(host)
    except PeerRefused as exc:
        site.report("refused", peer_of(request.scope), exc.reason)
        raise


def _check_access(site: Site, request: Request, role: Role | None) -> None:
    """Check a client as on the MCP port.

    :param role: that the client needs, if there are tokens; None if it needs no token.
    :raises PeerRefused: it may not have the answer.
    """
    peer = peer_of(request.scope)
    try:
        if role is None:
            attrs.evolve(site.gate, tokens={}).roles_for(request.headers.get("host", ""), request.headers.raw)
            return
        roles = site.gate.roles_for(request.headers.get("host", ""), request.headers.raw)
        if role not in roles and "admin" not in roles:
            raise PeerRefused(403, f"this takes the role {role}; this token has {', '.join(sorted(roles))}")
    except PeerRefused as exc:
        site.report("refused", peer, exc.reason)
        raise
    caller.set(peer)
