"""`godot ingest`, with a daemon that takes small messages only."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import pytest

from godot.cli.ask import EXIT_UNREACHABLE, EXIT_USAGE, TOO_LARGE, Daemon, Unanswered
from godot.cli.send import Ingest


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
