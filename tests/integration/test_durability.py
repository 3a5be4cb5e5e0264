"""`durable` is said only when it is true: looked at on every connection to Redis, and at intervals (REL-001)."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any

import pytest
import trio

from godot import daemon
from godot.buffer.redis import RedisBuffer
from godot.errors import BufferUnavailable
from tests.programs import ENOUGH, Peer, Program, Workplace, connect
from tests.redis_servers import DURABLE, RedisServers, until

OF_THE_FILE = "Redis does not have every write on disk before it answers"


def make(port: int, *, user: str = "", vouched: bool = False) -> RedisBuffer:
    return RedisBuffer(f"redis://{user}127.0.0.1:{port}", queue="q", daemon="d", max_size=10_000, vouched=vouched)


async def started(redis_servers: RedisServers, config: str = DURABLE) -> int:
    port = redis_servers.start(config=config)
    await until(partial(redis_servers.ask, port, "PING"))
    return port


@pytest.mark.parametrize(
    ("settings", "weakness"),
    [
        ({}, None),
        ({"appendonly": "no"}, f"{OF_THE_FILE} (appendonly no)"),
        ({"appendfsync": "everysec"}, f"{OF_THE_FILE} (appendfsync everysec)"),
        ({"appendfsync": "no"}, f"{OF_THE_FILE} (appendfsync no)"),
        ({"no-appendfsync-on-rewrite": "yes"}, f"{OF_THE_FILE} (no-appendfsync-on-rewrite yes)"),
        (
            {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"},
            "its memory is full (maxmemory-policy allkeys-lru)",
        ),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-ttl"}, "(maxmemory-policy volatile-ttl)"),
        ({"maxmemory": "100mb", "maxmemory-policy": "noeviction"}, None),
        ({"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, None),
    ],
)
async def test_what_a_redis_is_set_to_is_seen_in_the_push_itself_and_in_a_look(
    settings: dict[str, str], weakness: str | None, redis_servers: RedisServers
) -> None:
    """REL-001: on the first connection, and, changed while it runs, at the next look."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers)
        running = make(port)
        assert (await running.push([b"before"])).weakness is None
        for name, value in settings.items():
            redis_servers.ask(port, "CONFIG", "SET", name, value)
        for seen in (
            (await make(port).push([b"first"])).weakness,
            await running.weakness(),
            (await running.push([b"later"])).weakness,
        ):
            if weakness is None:
                assert seen is None
            else:
                assert weakness in str(seen)
                assert " set " in str(seen), "what to do"


async def test_a_push_on_a_new_connection_is_never_called_durable_for_what_the_old_server_was(
    redis_servers: RedisServers,
) -> None:
    """REL-001: the server is replaced between a look and a push, and the client connects anew by itself."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers)
        buffer = make(port)
        for number in range(3):
            assert await buffer.weakness() is None
            redis_servers.kill(port)
            redis_servers.start_again(port, "--appendonly", "no")
            await until(partial(redis_servers.ask, port, "PING"))
            weak = await pushed(buffer, f"weak {number}")
            assert OF_THE_FILE in str(weak)
            redis_servers.kill(port)
            redis_servers.start_again(port)
            await until(partial(redis_servers.ask, port, "PING"))
            assert await pushed(buffer, f"well {number}") is None


async def pushed(buffer: RedisBuffer, message: str) -> str | None:
    """Push until it works, as the batcher does; return why that push is not durable."""
    while True:
        try:
            return (await buffer.push([message.encode()])).weakness
        except BufferUnavailable:
            await trio.sleep(0.02)


async def test_a_file_that_is_only_being_made_is_not_durable_yet(redis_servers: RedisServers) -> None:
    """REL-001: after CONFIG SET appendonly yes nothing is appended until the first file is written."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers, 'save ""\nappendonly no\nappendfsync always\nrdb-key-save-delay 20000\n')
        for number in range(100):
            redis_servers.ask(port, "SET", f"key-{number}", "x")  # the file takes two seconds
        redis_servers.ask(port, "CONFIG", "SET", "appendonly", "yes")
        buffer = make(port)
        assert "no append-only file yet" in str((await buffer.push([b"x"])).weakness)
        assert "no append-only file yet" in str(await buffer.weakness()), "although some of it is written by now"
        await until(lambda: redis_servers.ask(port, "INFO", "persistence")["aof_rewrite_in_progress"] == 0)
        assert await buffer.weakness() is None
        assert (await buffer.push([b"y"])).weakness is None


@pytest.mark.parametrize("forbidden", ["-config", "-info", "-config -info"])
async def test_what_redis_does_not_tell_is_not_durable_unless_the_operator_vouches_for_it(
    forbidden: str, redis_servers: RedisServers
) -> None:
    """REL-001: managed servers forbid to look. What they do tell counts all the same."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers)
        redis_servers.ask(port, "ACL", "SETUSER", "logger", "on", ">secret", "~*", "+@all", *forbidden.split())
        login = "logger:secret@"
        weakness = (await make(port, user=login).push([b"x"])).weakness
        assert "Redis does not tell whether every write is on disk before it answers" in str(weakness)
        assert "set GODOT_REDIS_DURABLE=true if you know that it is" in str(weakness)
        assert (await make(port, user=login, vouched=True).push([b"y"])).weakness is None
        if "info" not in forbidden:
            redis_servers.ask(port, "CONFIG", "SET", "maxmemory", "100mb")
            redis_servers.ask(port, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            assert "allkeys-lru" in str(await make(port, user=login, vouched=True).weakness())
        if "config" not in forbidden:
            redis_servers.ask(port, "CONFIG", "SET", "appendfsync", "everysec")
            assert "everysec" in str(await make(port, user=login, vouched=True).weakness())


async def test_a_command_that_was_renamed_away_is_one_that_does_not_tell(redis_servers: RedisServers) -> None:
    """REL-001: `unknown command` instead of NOPERM."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers, f'{DURABLE}rename-command CONFIG ""\n')
        assert "CONFIG: unknown command" in str(await make(port).weakness())
        assert await make(port, vouched=True).weakness() is None


async def test_a_replica_takes_nothing_or_is_not_durable(redis_servers: RedisServers) -> None:
    """REL-001: what is written to a replica goes when it next follows its master."""
    with trio.fail_after(ENOUGH):
        master, replica = await started(redis_servers), await started(redis_servers)
        buffer = make(replica)
        assert (await buffer.push([b"x"])).weakness is None
        redis_servers.ask(replica, "REPLICAOF", "127.0.0.1", master)
        await redis_servers.follow(replica)
        with pytest.raises(BufferUnavailable, match="read only replica"):
            await buffer.push([b"y"])
        redis_servers.ask(replica, "CONFIG", "SET", "replica-read-only", "no")
        assert "Redis is a replica" in str(await buffer.weakness())
        assert "Redis is a replica" in str((await buffer.push([b"y"])).weakness)
        redis_servers.ask(replica, "REPLICAOF", "NO", "ONE")
        assert await buffer.weakness() is None
        redis_servers.kill(replica)
        with pytest.raises(BufferUnavailable):
            await buffer.weakness()


async def refusing(answer: bytes, stream: trio.SocketStream) -> None:
    """Answer everything as a Redis that loads its data, or has lost its disk."""
    with stream.socket:
        while await stream.receive_some():
            await stream.send_all(answer)


@pytest.mark.parametrize(
    "answer",
    [b"-LOADING Redis is loading the dataset in memory", b"-MISCONF Errors writing to the AOF file", b"-BUSY a script"],
)
async def test_a_redis_that_answers_nothing_but_a_fault_is_unavailable_and_nothing_of_it_is_durable(
    answer: bytes,
) -> None:
    """REL-001, REL-004."""
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, partial(refusing, answer + b"\r\n"), 0, host="127.0.0.1")
            )
            buffer = make(listeners[0].socket.getsockname()[1])
            for _ in range(2):
                with pytest.raises(BufferUnavailable, match=answer.partition(b" ")[2].decode()):
                    await buffer.push([b"x"])
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(place: Workplace, *command: object, **environ: Any) -> AsyncIterator[tuple[Program, Peer]]:
    godot = place.start("godot", *command, "--port", 0, GODOT_DRAIN_S=0, **environ)
    async with connect(await godot.ready()) as peer:
        yield godot, peer
    await godot.stop()


def request(godot: Program, method: str, path: str, body: object = None) -> dict[str, Any]:
    with closing(http.client.HTTPConnection(godot.http.removeprefix("http://"), timeout=5)) as client:
        client.request(method, path, json.dumps(body))
        value: dict[str, Any] = json.loads(client.getresponse().read())
    return value


@pytest.mark.parametrize("environ", [{"REDIS_PERSISTENCE": "none"}, {"REDIS_AOF_ENABLED": "false"}])
async def test_godots_own_redis_without_a_file_is_not_called_durable(environ: dict[str, str], place: Workplace) -> None:
    """REL-001, MAINT-001, MAINT-003: in the answers, a line, the status and /readyz."""
    with trio.fail_after(ENOUGH):
        async with running(place, "up", "--data-dir", place.path / "data", **environ) as (godot, peer):
            answer = await peer.call("logger_log", component="c", level="INFO", message="m", ack="durable")
            assert answer["status"] == "queued"
            assert answer["warnings"][0].startswith(f"not durable: {OF_THE_FILE} (appendonly no)")
            assert "REDIS_PERSISTENCE=aof" in answer["warnings"][0]
            entry = {"component": "c", "level": "INFO", "message": "m"}
            answer = await peer.call("logger_log_batch", logs=[entry], ack="durable")
            assert (answer["status"], answer["accepted"], len(answer["warnings"])) == ("queued", 1, 1)
            assert OF_THE_FILE in (await godot.event("redis_not_durable"))["reason"]
            told = await trio.to_thread.run_sync(request, godot, "POST", "/v1/entries?ack=durable", entry)
            assert (told["status"], told["accepted"], len(told["warnings"])) == ("queued", 1, 1)
            status = await peer.status()
            assert (status["durable"], OF_THE_FILE in status["not_durable"]) == (False, True)
            ready = await trio.to_thread.run_sync(request, godot, "GET", "/readyz")
            assert (ready["status"], OF_THE_FILE in ready["not_durable"]) == ("degraded", True)


async def test_a_redis_that_comes_late_and_one_that_changes_are_told_of_and_so_is_the_end_of_it(
    place: Workplace, redis_servers: RedisServers
) -> None:
    """REL-001, MAINT-001: it is away when Godot starts, is a cache when it comes, and is mended while both run."""
    with trio.fail_after(ENOUGH):
        port = await started(redis_servers, "appendonly no\n")
        redis_servers.kill(port)
        environ = {"REDIS_URL": f"redis://127.0.0.1:{port}", "DEWEY_MCP_URL": "ws://127.0.0.1:9"}
        async with running(place, "serve", **environ) as (godot, peer):
            await godot.event("redis_down")
            redis_servers.start_again(port)
            assert OF_THE_FILE in (await godot.event("redis_not_durable"))["reason"]
            redis_servers.ask(port, "CONFIG", "SET", "appendfsync", "always")
            redis_servers.ask(port, "CONFIG", "SET", "appendonly", "yes")
            await godot.event("redis_durable")
            assert await peer.log("durable again", ack="durable")
            assert "not_durable" not in await peer.status()
            redis_servers.signal(port, signal.SIGSTOP)
            await until(lambda: len(godot.events("redis_down")) == 2)
            redis_servers.signal(port, signal.SIGCONT)
            await until(lambda: len(godot.events("redis_back")) == 2)
            assert len(godot.events("redis_durable")) == 1, "what was away was not changed"


def test_durability_is_checked_well_within_a_minute() -> None:
    assert daemon.DURABILITY_CHECK_S <= 10
