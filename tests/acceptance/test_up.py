"""`godot up`, as a newcomer and an operator see it: it starts, says where it is, survives, and leaves no trace."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis
import trio
from trio_websocket import ConnectionClosed

from godot import __version__
from tests.postgres_servers import Server, binaries
from tests.programs import (
    ENOUGH,
    POLL_S,
    Workplace,
    alive,
    connect,
    stored_messages,
    until,
    until_asked,
    until_longer,
)

SLOWER = 6
"""How many times as long as the command line's own start and PostgreSQL's initdb the first start may take."""


async def ready_after(place: Workplace) -> float:
    """Start `godot up`, wait until it is ready, stop it; return how long the start took."""
    program = place.up()
    await program.ready()
    assert await program.stop() == 0
    return program.ready_after


def another_pid(place: Workplace, server: str, old: int) -> bool:
    return place.endpoints()["pids"][server] not in (None, old)


async def test_one_command_starts_everything_and_leaves_nothing_behind(place: Workplace) -> None:
    """The ready line and `endpoints.json` say where everything is (SEC-005: Redis is a unix socket)."""
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_PROT=1)
        mcp = await program.ready()
        async with connect(mcp) as peer:  # it answers as soon as it says so
            await peer.log("hello")
            await peer.found(component="gates")

        assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9]\d*", mcp)
        assert program.out == [f"ready mcp={mcp} http={program.http} version={__version__}"]
        assert program.err == ["godot: warning: GODOT_PROT: no such setting; did you mean 'GODOT_PORT'?"]

        endpoints = place.endpoints()
        assert (endpoints["mcp"], endpoints["dewey"]) == (mcp, None)
        assert set(endpoints) == {"mcp", "http", "dewey", "database", "redis", "pids"}
        pids = endpoints["pids"]
        assert set(pids) == {"daemon", "redis", "postgres"}
        assert pids["daemon"] == program.process.pid
        assert all(map(alive, pids.values()))
        with psycopg.connect(endpoints["database"]) as database:
            assert database.info.dbname == "winni"
        assert endpoints["redis"].startswith("unix://")
        with redis.Redis.from_url(endpoints["redis"]) as client:
            assert client.ping()
            settings: dict[str, str] = client.config_get("append*")
            assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always"), "REL-001"

        assert await program.stop() == 0
        assert not (place.data / "endpoints.json").exists()
        assert not any(map(alive, pids.values()))
        assert place.processes() == []


async def test_is_ready_soon_with_nothing_there_and_sooner_with_data(place: Workplace) -> None:
    """Most of the first start is PostgreSQL's initdb. The machine may do something else: the best of three counts."""
    with trio.fail_after(2 * ENOUGH):
        began = time.monotonic()
        assert await place.start("godot", "--version").exit() == 0
        with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as directory:
            await trio.to_thread.run_sync(Server, next(reversed(binaries().values())), Path(directory))
        parts = time.monotonic() - began
        cold = await ready_after(place)
        for _ in range(3):
            if (warm := await ready_after(place)) < cold:
                break
    assert warm < cold <= SLOWER * parts


async def test_ctrl_c_ends_it_in_order_and_what_was_stored_is_there_next_time(place: Workplace) -> None:
    """REL-005, for SIGINT."""
    with trio.fail_after(ENOUGH):
        program = place.up()
        async with connect(await program.ready()) as peer:
            await peer.log("before the restart", data={"n": 1})
            before = await peer.found(search="restart")
            assert await program.stop(signal.SIGINT) == 0
            assert await peer.closed() == 1001
        draining, stopped = program.events()
        assert (draining["event"], stopped["event"]) == ("draining", "stopped")
        assert (stopped["drained"], stopped["lost"]) == ("true", "0")
        assert program.err == []

        async with connect(await place.up().ready()) as peer:
            after = await peer.found(search="restart")
            status = await peer.status()
        assert {**after, "age": 0} == {**before, "age": 0}
        assert (status["received"], status["stored"]) == (1, 1), "totals hold over restarts"


async def test_a_second_one_on_the_same_data_says_so_and_does_no_harm(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        first = place.up()
        async with connect(await first.ready()) as peer:
            endpoints = place.endpoints()
            second = place.up()
            assert await second.exit() == 2
            (said,) = second.err
            assert str(place.data) in said
            assert str(first.process.pid) in said
            assert second.out == []

            assert place.endpoints() == endpoints
            await peer.log("unharmed")
            await peer.found(search="unharmed")


async def test_a_cleaner_that_works_through_its_directory_neither_ends_it_nor_lets_a_second_one_in(
    place: Workplace,
) -> None:
    """It takes the lock, the endpoints and the sockets."""
    with trio.fail_after(ENOUGH):
        first = place.up()
        async with connect(await first.ready()) as peer:
            endpoints = place.endpoints()
            for name in ("lock", "endpoints.json"):
                (place.data / name).unlink()
            second = place.up()
            assert await second.exit() == 2
            assert "another godot up is using it" in second.err[0]
            assert first.events("server") == [], "its servers were left alone"

            await until((place.data / "endpoints.json").exists)
            assert place.endpoints() == endpoints
            for server in ("redis", "postgres"):
                shutil.rmtree(place.data / server / "socket")
            await until(lambda: len([line for line in first.events("server") if "is back" in line["reason"]]) == 2)
            await peer.log("unharmed", ack="durable")
            await peer.found(search="unharmed")
        assert await first.stop() == 0


async def test_a_postgres_that_cannot_be_started_again_is_no_reason_to_end(place: Workplace) -> None:
    """REL-004: entries are taken in all the while, and stored when it can."""
    with trio.fail_after(2 * ENOUGH):
        program = place.up()
        async with connect(await program.ready()) as peer:
            control = place.data / "postgres" / "data" / "global" / "pg_control"
            control.rename(kept := control.with_suffix(".kept"))
            os.kill(place.endpoints()["pids"]["postgres"], signal.SIGKILL)
            for number in range(6):
                await program.event("server", number + 1)
                await peer.log(f"entry {number}", ack="durable")
            assert "could not find the database system" in program.events("server")[-1]["reason"]
            kept.rename(control)
            await peer.status_with(queued=0, in_flight=0, dewey="up")
        assert stored_messages(place.endpoints()["database"]) == [f"entry {number}" for number in range(6)]
        assert await program.stop() == 0
        assert program.events()[-1]["event"] == "stopped"


async def test_a_redis_or_postgres_that_is_killed_is_started_again_and_no_entry_is_lost(place: Workplace) -> None:
    """REL-004: logging goes on meanwhile, and what was answered `queued` arrives, once and in order."""
    with trio.fail_after(ENOUGH):
        program = place.up()
        logged: list[str] = []

        async def log_on(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            async with connect(program.mcp) as peer:
                with trio.CancelScope() as scope:
                    task_status.started(scope)
                    while True:
                        message = f"entry {len(logged)}"
                        await peer.log(message)
                        logged.append(message)
                        await trio.sleep(POLL_S)

        await program.ready()
        async with trio.open_nursery() as nursery, connect(program.mcp) as peer:
            logging: trio.CancelScope = await nursery.start(log_on)
            await until_longer(logged, 20)
            for server in ("redis", "postgres", "redis"):
                pids = place.endpoints()["pids"]
                seen = len(logged)
                os.kill(pids[server], signal.SIGKILL)
                await until(partial(another_pid, place, server, pids[server]))
                await until_longer(logged, seen + 20)
            logging.cancel()
            database = place.endpoints()["database"]
            await until(lambda: set(stored_messages(database)) >= set(logged))
            await peer.status_with(queued=0, in_flight=0, redis="up", dewey="up")
        stored = stored_messages(database)
        assert len(stored) == len(set(stored)), "stored exactly once"
        assert [message for message in stored if message in set(logged)] == logged
        assert len(program.events("server")) >= 6, "each death and each return is told"


async def test_after_kill_9_of_the_daemon_its_servers_end_and_everything_that_was_in_redis_is_found(
    place: Workplace,
) -> None:
    """REL-004: what was in flight, and what waited. Its servers stop in order, by themselves."""
    with trio.fail_after(ENOUGH):
        program = place.up()
        await program.ready()
        logged = [f"entry {number}" for number in range(1_500)]
        async with connect(program.mcp) as peer:
            blocker = psycopg.connect(place.endpoints()["database"])  # nothing can be stored while it holds this
            blocker.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
            for begin in range(0, len(logged), 500):
                await peer.log_batch(logged[begin : begin + 500])
            await peer.status_with(received=len(logged))

            async def is_on_its_way() -> bool:  # between two tries to store it, all of it waits again
                status = await peer.status()
                return bool(status["in_flight"] and status["queued"])

            await until_asked(is_on_its_way)
            await program.kill()
            with suppress(ConnectionClosed):
                await peer.closed()
        blocker.close()
        await until(lambda: not place.processes())

        async with connect(await place.up().ready()) as peer:
            await peer.status_with(stored=len(logged), queued=0, in_flight=0)
        assert stored_messages(place.endpoints()["database"]) == logged


async def test_a_server_that_cannot_start_ends_it_with_a_line_that_says_why(place: Workplace) -> None:
    """A Redis whose file is damaged, a PostgreSQL whose data is of another version, a directory that is none."""
    with trio.fail_after(ENOUGH):
        (place.data / "redis").mkdir(parents=True)
        place.data.chmod(0o711)
        (place.data / "redis" / "appendonly.aof").write_text("this is no AOF")
        program = place.up()
        assert await program.exit() == 2
        assert program.err[0].startswith(f"godot: {place.data}/redis: Redis does not start")
        assert "Bad file format" in " ".join(program.err)
        assert program.out == []
        assert place.processes() == []

        place.forget()
        (place.data / "postgres" / "data").mkdir(parents=True)
        for directory in (place.data, place.data / "postgres"):
            directory.chmod(0o711)
        (place.data / "postgres" / "data" / "PG_VERSION").write_text("9\n")
        program = place.up()
        assert await program.exit() == 2
        assert "was written by PostgreSQL 9" in program.err[0]
        assert place.processes() == []

        place.forget()
        place.data.write_text("a file")
        program = place.start("godot", "up", "--port", 0, GODOT_DATA_DIR=place.data)
        assert await program.exit() == 2
        (said,) = program.err
        assert str(place.data) in said


async def test_a_reader_that_closes_its_stdout_does_not_end_it(place: Workplace) -> None:
    """`godot up | head -1`: status lines have nowhere to go, and that is no reason to stop recording."""
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_STATUS_S="0.1", stdout=subprocess.PIPE)
        pipe = program.process.stdout
        assert pipe is not None
        ready = await trio.to_thread.run_sync(pipe.readline)
        pipe.close()
        mcp = ready.decode().split()[1].removeprefix("mcp=")
        async with connect(mcp) as peer:
            await trio.sleep(0.5)  # several status lines: nothing tells of those that nobody reads
            await peer.log("still here")
            await peer.found(search="still")
        assert await program.stop() == 0
        assert program.err == []


async def test_a_port_that_is_taken_ends_the_start_with_a_line_that_says_so(place: Workplace) -> None:
    with trio.fail_after(ENOUGH), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = place.start("godot", "up", "--data-dir", place.data, "--port", port)
        assert await program.exit() == 2
        assert program.err == [
            f"godot: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another port"
        ]
        assert program.out == []


async def test_bad_settings_end_the_start_with_one_line_for_each(place: Workplace) -> None:
    """MAINT-004."""
    with trio.fail_after(ENOUGH):
        program = place.up(
            BATCH_SIZE="many",
            MAX_QUEUE_SIZE=0,
            GODOT_DRAIN_S="soon",
            DEWEY_MCP_URL="http://dewey",
            REDIS_PERSISTENCE="rdb",
            LOG_PARTITION_ENABLED="maybe",
            BATCH_TIMEOUT_MS="",  # empty is not set
        )
        assert await program.exit() == 2
        said = [line.removeprefix("godot: ").partition(":")[0] for line in program.err]
        assert sorted(said) == [
            "BATCH_SIZE",
            "DEWEY_MCP_URL",
            "GODOT_DRAIN_S",
            "LOG_PARTITION_ENABLED",
            "MAX_QUEUE_SIZE",
            "REDIS_PERSISTENCE",
        ]
        assert program.out == []
        assert not place.data.exists(), "nothing was started"


async def test_an_open_door_is_refused_unless_a_setting_says_that_it_is_meant(place: Workplace) -> None:
    """SEC-006, for each of the three programs."""
    with trio.fail_after(ENOUGH):
        database: dict[str, Any] = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
        refused = [
            (place.up("--host", "0.0.0.0"), "godot: ", "GODOT_ALLOW_ANONYMOUS=true"),
            (place.start("godot", "serve", "--port", 0, GODOT_HOST="::", **database), "godot: ", "GODOT_ALLOW"),
            (place.start("dewey", "serve", "--host", "0.0.0.0", "--port", 0, **database), "dewey: ", "DEWEY_ALLOW"),
        ]
        for program, name, remedy in refused:
            assert await program.exit() == 2
            (said,) = program.err
            assert said.startswith(name)
            assert remedy in said
            assert program.out == []

        own: dict[str, Any] = {"GODOT_DATA_DIR": place.data, "DEWEY_MCP_URL": "ws://127.0.0.1:1"}
        meant = place.start("godot", "serve", "--host", "0.0.0.0", "--port", 0, GODOT_ALLOW_ANONYMOUS="true", **own)
        mcp = await meant.ready()
        assert mcp.startswith("ws://0.0.0.0:")
        async with connect(mcp.replace("0.0.0.0", "127.0.0.1")) as peer:
            assert (await peer.status())["redis"] == "up"


async def test_serve_without_a_database_says_what_is_missing(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        for program in (place.start("godot", "serve", "--port", 0), place.start("dewey", "serve", "--port", 0)):
            assert await program.exit() == 2
            (said,) = program.err
            assert "DATABASE_URL" in said
            assert program.out == []


async def test_help_tells_every_command_and_option(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        listening = ["--host", "--port", "--http-port"]
        expected = {
            ("godot", "--help"): ["up", "serve"],
            ("godot", "up", "--help"): ["--data-dir", *listening, "GODOT_PORT", "9060"],
            ("godot", "serve", "--help"): [*listening, "REDIS_URL", "DEWEY_MCP_URL", "DATABASE_URL"],
            ("dewey", "--help"): ["serve"],
            ("dewey", "serve", "--help"): [*listening, "DATABASE_URL", "9020"],
            ("dewey", "--version"): [__version__],
        }
        programs = [(place.start(*command), words) for command, words in expected.items()]
        for program, words in programs:
            assert await program.exit() == 0
            text = "\n".join(program.out)
            assert [word for word in words if word not in text] == []
            assert program.err == []
