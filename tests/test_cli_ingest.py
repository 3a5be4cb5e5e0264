"""`godot ingest`: a file that cannot be read to its end, and a daemon that is not there."""

from __future__ import annotations

import errno
import io
import os
from typing import Any, cast

import pytest
import trio
import trio.testing

from godot.cli.ask import EXIT_USAGE, Daemon, Unanswered
from godot.cli.send import BUSY_S, Ingest, Line

GOOD = b'{"component":"a","level":"INFO","message":"m"}\n'


class Fake:
    """A daemon that is away until a time, and then takes everything."""

    def __init__(self, away_until: float = 0.0) -> None:
        self.away_until = away_until
        self.taken = 0

    async def ask(self, tool: str, *, logs: list[Any], ack: str) -> dict[str, Any]:
        assert (tool, ack) == ("logger_log_batch", "durable")
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.away_until:
            raise Unanswered("cannot connect to ws://127.0.0.1:1: Connection refused")
        self.taken += len(logs)
        return {"accepted": len(logs), "filtered": 0, "rejected": [], "warnings": [], "status": "durable"}


class BadDisk(io.BytesIO):
    """Fails behind what it has."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if chunk := super().read1(size):
            return chunk
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def ingest(daemon: Fake, file: io.BytesIO) -> Ingest:
    return Ingest(cast("Daemon", daemon), cast("io.BufferedReader", file), known_as=None, size=None)


@pytest.mark.parametrize("size", [0, 3, 1_200])
async def test_a_file_that_cannot_be_read_to_its_end_is_sent_as_far_as_it_can(
    size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Fake()
    assert await ingest(daemon, BadDisk(GOOD * size + GOOD[:10])).run() == EXIT_USAGE
    assert daemon.taken == size
    counts, fault = capsys.readouterr().err.splitlines()
    assert "taken in" in counts
    assert f"line {size + 1:,} and what follows cannot be read (Input/output error)" in fault


async def test_who_waits_for_a_daemon_that_is_away_is_told_so_at_once_and_once(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(1, {}, 2)
    daemon = Fake(away_until=BUSY_S / 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ingest(daemon, io.BytesIO())._send, [line])
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 0
        said = capsys.readouterr().err
        assert "Connection refused; trying again for 60 s" in said
    assert daemon.taken == 1
    assert capsys.readouterr().err == ""

    with pytest.raises(Unanswered, match="Connection refused"):
        await ingest(Fake(away_until=10 * BUSY_S), io.BytesIO())._send([line])
