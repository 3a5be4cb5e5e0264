"""A terminal, a pager or a log collector that does what it likes: the recorder goes on (LIM-001), and ends in order."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack

import pytest
import trio

from tests.programs import ENOUGH, Workplace, connect, stored_messages, until
from tests.redis_servers import free_port
from tests.terminals import stuck


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
async def test_a_stdout_that_nobody_reads_stops_nothing(place: Workplace, kind: str) -> None:
    """Ctrl-S on its terminal, or a collector that hangs: durable entries are acknowledged, and SIGTERM drains."""
    with trio.fail_after(2 * ENOUGH), ExitStack() as streams:
        out, err = (streams.enter_context(stuck(kind)) for _ in range(2))
        program = place.up(GODOT_STATUS_S="0.1", GODOT_NO_SUCH_THING="x", stdout=out.writer, stderr=err.writer)
        mcp = (await place.endpoints_of(program))["mcp"]
        for number in range(5):
            async with connect(mcp) as peer:
                logged = [await peer.log(f"entry {number}.{n}", ack="durable") for n in range(5)]
                assert [each["status"] for each in logged] == ["durable"] * 5

        said = await trio.to_thread.run_sync(out.read, "event=status")
        assert said.startswith(f"ready mcp={mcp} "), "it waited for its reader"
        out.stop()
        async with connect(mcp) as peer:
            await peer.log("the last one", ack="durable")
            await peer.status_with(stored=26)
        assert await program.stop() == 0


async def test_a_stdout_that_nobody_reads_does_not_stop_dewey_either(place: Workplace) -> None:
    with trio.fail_after(2 * ENOUGH), stuck("pipe") as stream:
        database = place.up()
        await database.ready()
        port = free_port()
        program = place.start(
            "dewey", "serve", "--port", port, DATABASE_URL=place.endpoints()["database"], stdout=stream.writer
        )

        def listens() -> bool:
            with socket.socket() as tried:
                return tried.connect_ex(("127.0.0.1", port)) == 0

        await until(listens)
        async with connect(f"ws://127.0.0.1:{port}") as peer:
            assert (await peer.call("dewey_query_logs"))["entries"] == []
        assert await program.stop() == 0


@pytest.mark.parametrize("times", [1, 2])
async def test_closing_its_terminal_drains_and_leaves_no_server_behind(place: Workplace, times: int) -> None:
    """REL-005: what was answered `queued` a moment before is stored."""
    with trio.fail_after(ENOUGH):
        program = place.up()
        async with connect(await program.ready()) as peer:
            await peer.log("just before")
            for _ in range(times):
                program.process.send_signal(signal.SIGHUP)
            assert await peer.closed() == 1001
        assert await program.exit() == 0
        assert [each["event"] for each in program.events()] == ["draining", "stopped"]
        assert place.processes() == []
        assert not (place.data / "endpoints.json").exists()
        again = place.up()
        await again.ready()
        assert stored_messages(place.endpoints()["database"]) == ["just before"]
