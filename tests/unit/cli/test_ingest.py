"""`godot ingest`: a daemon that takes small messages only, or is not there, and a file that cannot be read on."""

from __future__ import annotations

import errno
import io
import json
import os
from typing import Any, cast

import pytest
import trio
import trio.testing

from godot.cli.daemon import TOO_LARGE, Daemon, Unanswered
from godot.cli.send import BUSY_S, Ingest, Line
from godot.service.exits import EXIT_UNREACHABLE, EXIT_USAGE


class FakeDaemon:
    """Takes messages of so many bytes, and refuses entries without a level.

    :param calls_left: then it is gone.
    """

    def __init__(self, largest: int, calls_left: int = 1_000) -> None:
        self.largest = largest
        self.calls_left = calls_left
        self.sent: list[int] = []
        self.taken: list[str] = []

    async def ask(self, _: str, *, logs: list[dict[str, Any]], ack: str) -> dict[str, Any]:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise Unanswered("no such tool", EXIT_USAGE)
        self.sent.append(size := len(json.dumps(logs)))
        if size > self.largest:
            raise Unanswered(f"a message of {size} bytes", EXIT_USAGE, TOO_LARGE)
        rejected = [{"index": index, "error": "level: missing"} for index, each in enumerate(logs) if "l" not in each]
        good = [each["message"] for each in logs if "l" in each]
        self.taken += good
        warnings = [f"entry {index}: odd" for index, each in enumerate(logs) if each["message"] == "odd"]
        return {"status": ack, "accepted": len(good), "filtered": 0, "rejected": rejected, "warnings": warnings}


def entry(message: str) -> str:
    return json.dumps({"message": message, "l": "INFO"})


async def ingest(daemon: FakeDaemon, text: str, known_as: str | None = None) -> int:
    file = cast("io.BufferedReader", io.BytesIO(text.encode()))
    return await Ingest(cast("Daemon", daemon), file, known_as=known_as, size=None).run()


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]


async def test_a_line_that_is_too_large_is_named_with_its_size_and_the_others_are_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon = FakeDaemon(2_000)
    lines = [entry("x" * 50)] * 100 + [entry("y" * 3_000)] + [entry("z" * 50)] * 100
    assert await ingest(daemon, "\n".join(lines)) == 4
    assert len(daemon.taken) == 200
    *faults, counts = told(capsys)
    assert [each.partition(": a message of")[0] for each in faults] == [
        f"line 101: {len(lines[100]):,} bytes are too large"
    ]
    assert counts == "200 entries taken in and on disk, 1 line refused"


async def test_once_the_daemon_took_less_it_is_not_sent_too_much_again_and_again() -> None:
    daemon = FakeDaemon(2_000)
    assert await ingest(daemon, "\n".join([entry("x" * 50)] * 400)) == 0
    refused = [size for size in daemon.sent if size > daemon.largest]
    assert len(daemon.taken) == 400
    assert sum(refused) < 4 * sum(daemon.sent)
    assert daemon.sent[-3:] == [size for size in daemon.sent[-3:] if size <= daemon.largest]


async def test_refused_lines_are_told_in_their_order_and_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join([entry("a"), '{"message": "no level"}', "garbage", "[1]", "", entry("odd"), '"\x7f'])
    assert await ingest(FakeDaemon(2_000), text) == 4
    assert told(capsys) == [
        "line 6: odd",
        "line 2: level: missing",
        "line 3: not JSON: expecting value at character 1",
        "line 4: not an entry: a JSON object is needed",
        "line 7: not JSON: unterminated string starting at character 1",
        "2 entries taken in and on disk, 4 lines refused",
    ]


async def test_a_file_that_may_have_been_sent_before_is_not_said_to_be_new(capsys: pytest.CaptureFixture[str]) -> None:
    await ingest(FakeDaemon(2_000), entry("a"), known_as="1:2")
    assert told(capsys) == ["1 entry taken in and on disk; those that came from this file before are stored once"]


async def test_when_the_daemon_goes_it_is_said_how_far_the_file_came(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon(10**9, calls_left=1)
    with pytest.raises(Unanswered) as gone:
        await ingest(daemon, "\n".join([entry("a")] * 100_000))
    assert gone.value.code != EXIT_UNREACHABLE
    assert told(capsys) == ["500 entries taken in and on disk"]


class BadDisk(io.BytesIO):
    """Fails behind what it has."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if chunk := super().read1(size):
            return chunk
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("size", [0, 3, 1_200])
async def test_a_file_that_cannot_be_read_to_its_end_is_sent_as_far_as_it_can(
    size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = FakeDaemon(10**9)
    file = cast("io.BufferedReader", BadDisk(f"{entry('a')}\n".encode() * size + b'{"mess'))
    assert await Ingest(cast("Daemon", daemon), file, known_as=None, size=None).run() == EXIT_USAGE
    assert len(daemon.taken) == size
    counts, fault = told(capsys)
    assert counts.startswith(f"{size:,} entries taken in")
    assert fault == f"line {size + 1:,} and what follows cannot be read (Input/output error)"


class AwayDaemon(FakeDaemon):
    """Is away until a time."""

    def __init__(self, until: float) -> None:
        super().__init__(10**9)
        self.until = until

    async def ask(self, _: str, *, logs: list[dict[str, Any]], ack: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.until:
            raise Unanswered("cannot connect: Connection refused")
        return await super().ask(_, logs=logs, ack=ack)


async def test_who_waits_for_a_daemon_that_is_away_is_told_so_at_once_and_once(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(1, json.loads(entry("a")), 2)

    async def send(daemon: FakeDaemon) -> None:
        await Ingest(cast("Daemon", daemon), cast("io.BufferedReader", None), known_as=None, size=None)._send([line])

    daemon = AwayDaemon(BUSY_S / 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, daemon)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 0
        assert told(capsys) == ["cannot connect: Connection refused; trying again for 60 s"]
    assert daemon.taken == ["a"]
    assert told(capsys) == []

    with pytest.raises(Unanswered, match="Connection refused"):
        await send(AwayDaemon(10 * BUSY_S))
