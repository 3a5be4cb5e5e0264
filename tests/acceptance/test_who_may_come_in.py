"""Who may come in, against the running programs (SEC-006): refused, said once, counted, and no token repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import trio
from trio_websocket import ConnectionRejected

from tests.programs import ENOUGH, Peer, Program, Workplace, connect, frame, workplace

WRITER = "writer-token-0123456789abcdef"
READER = "reader-token-0123456789abcdef"
BOSS = "boss-token-0123456789abcdef"
STRANGER = "stranger-token-0123456789abcdef"


@pytest.fixture
def place() -> Iterator[Workplace]:
    with workplace() as place:
        (place.path / "tokens").write_text(f"# roles, token\nwrite {WRITER}\nread {READER}\nadmin {BOSS}\n")
        yield place


async def refusal(url: str, **headers: str) -> tuple[int, str]:
    """Try to connect; return the status and the text of the refusal."""
    with pytest.RaisesGroup(ConnectionRejected) as group:
        async with connect(url, **headers):
            pass
    (rejected,) = group.value.exceptions
    assert isinstance(rejected, ConnectionRejected)
    return rejected.status_code, (rejected.body or b"").decode()


async def listed(peer: Peer) -> set[str]:
    answer = await peer.ask(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
    return {tool["name"] for tool in answer["result"]["tools"]}


def refusals(program: Program) -> list[tuple[str, str]]:
    """Return (host of the peer, reason) of each line about a refusal."""
    return [(line["peer"].rpartition(":")[0], line["reason"]) for line in program.events("refused")]


async def test_a_token_opens_what_its_role_allows_and_nothing_else(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_TOKENS_FILE=place.path / "tokens")
        url = await program.ready()

        async with connect(url, Authorization=f"Bearer {WRITER}") as peer:
            assert await listed(peer) == {"logger_log", "logger_log_batch"}
            assert (await peer.log("from a writer"))["status"] == "queued"
            refused = await peer.ask(frame("logger_query"))
            assert refused["error"] == {
                "code": -32602,
                "message": "logger_query needs the role read; this token has write",
            }
        async with connect(url, Authorization=f"Bearer {READER}") as peer:
            tools = await listed(peer)
            assert tools >= {"logger_query", "logger_status"}
            assert tools.isdisjoint({"logger_log", "logger_log_batch", "logger_clear", "logger_dead_purge"})
            assert (await peer.found(component="gates"))["message"] == "from a writer"
            assert "needs the role write" in (await peer.ask(frame("logger_log")))["error"]["message"]
        async with connect(url, Authorization=f"Bearer {BOSS}") as peer:
            assert await listed(peer) >= {"logger_log", "logger_query", "logger_dead_purge"}
            await peer.log("from the boss")
            assert (await peer.status())["refused_peers"] == 2

        status, text = await refusal(url)
        assert (status, text) == (401, "a token is needed: Authorization: Bearer <token>\n")
        for _ in range(3):
            status, text = await refusal(url, Authorization=f"Bearer {STRANGER}")
            assert (status, text) == (401, "this token is not known\n")

        async with connect(url, Authorization=f"Bearer {BOSS}") as peer:
            assert (await peer.status())["refused_peers"] == 6
        assert refusals(program) == [("127.0.0.1", "logger_query needs the role read; this token has write")]
        assert await program.stop() == 0
        said = "\n".join(program.out + program.err)
        assert not [token for token in (WRITER, READER, BOSS, STRANGER) if token in said]


async def test_pages_and_names_from_elsewhere_are_refused_before_the_upgrade(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(
            GODOT_ALLOWED_ORIGINS="console.example,localhost:3000", GODOT_ALLOWED_HOSTS="recorder.example"
        )
        url = await program.ready()
        for origin in ("https://evil.example", "null", "http://localhost:3001"):
            status, text = await refusal(url, Origin=origin)
            assert (status, text) == (403, f"pages from {origin!r} may not connect; see GODOT_ALLOWED_ORIGINS\n")
        for origin in ("http://localhost:3000", "https://console.example", program.http):
            async with connect(url, Origin=origin) as peer:
                await peer.log("from a page")

        port = int(url.rpartition(":")[2])
        for name, answer in ((b"evil.example", b"403"), (b"recorder.example", b"101"), (b"localhost", b"101")):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    b"GET / HTTP/1.1\r\nHost: " + name + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert (await stream.receive_some(64)).startswith(b"HTTP/1.1 " + answer)


async def test_godot_shows_its_token_to_a_dewey_that_wants_one(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        everything = place.up()
        await everything.ready()
        database = place.endpoints()["database"]
        dewey = place.start(
            "dewey", "serve", "--port", 0, DATABASE_URL=database, DEWEY_TOKENS_FILE=place.path / "tokens"
        )
        await dewey.ready()
        (place.path / "token").write_text(f"{STRANGER}\n")
        (place.path / "boss").write_text(f"{BOSS}\n")

        def godot(token: str) -> Program:
            return place.start(
                "godot",
                "serve",
                "--port",
                0,
                DEWEY_MCP_URL=dewey.mcp,
                GODOT_DEWEY_TOKEN_FILE=place.path / token,
                GODOT_DATA_DIR=place.path / "second",
                GODOT_DRAIN_S=0.5,
            )

        stranger = godot("token")
        async with connect(await stranger.ready()) as peer:
            await peer.log("held back", component="tokens")
            assert "401" in (await stranger.event("dewey_down"))["reason"]
        assert await stranger.stop() == 0
        assert refusals(dewey)[0] == ("127.0.0.1", "this token is not known")

        known = godot("boss")
        async with connect(await known.ready()) as peer:
            assert (await peer.found(component="tokens"))["message"] == "held back"


async def test_a_token_that_was_taken_out_of_the_file_opens_nothing_any_more(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        tokens = place.path / "tokens"
        tokens.chmod(0o644)
        program = place.up(GODOT_TOKENS_FILE=tokens)
        url = await program.ready()
        assert "has mode 0644: others may read it" in (await program.event("tokens_readable"))["reason"]
        async with connect(url, Authorization=f"Bearer {WRITER}") as peer:
            await peer.log("while it was known")
        tokens.write_text("half a line\n")
        await program.event("tokens_not_read")
        async with connect(url, Authorization=f"Bearer {WRITER}") as peer:
            await peer.log("a file with a fault changes nothing")
        tokens.write_text(f"write {STRANGER}\n")
        await program.event("tokens_changed")
        assert (await refusal(url, Authorization=f"Bearer {WRITER}"))[0] == 401
        async with connect(url, Authorization=f"Bearer {STRANGER}") as peer:
            await peer.log("from the new one")
