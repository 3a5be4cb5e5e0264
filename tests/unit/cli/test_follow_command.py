"""What `godot tail -f` says of what it could not follow, on the virtual clock."""

from __future__ import annotations

from typing import Any, cast

import pytest
from trio.testing import MockClock

from godot.cli.daemon import Daemon, Style, Unanswered
from godot.cli.find import tail_entries
from godot.service.exits import EXIT_UNREACHABLE, EXIT_USAGE

REFUSED = Unanswered("cursor: is of another database than this one; begin again without it", EXIT_USAGE)
AWAY = Unanswered("no connection", EXIT_UNREACHABLE)


class Scripted:
    """A daemon that answers what it was told to, and ends the command when it has."""

    def __init__(self, *answers: dict[str, Any] | Unanswered) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def ask(self, _tool: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        if not self._answers:
            raise Unanswered("the end", EXIT_USAGE)
        answer = self._answers.pop(0)
        if isinstance(answer, Unanswered):
            raise answer
        return answer


def page(cursor: str, *entries: str) -> dict[str, Any]:
    listed = [{"component": "c", "level": "INFO", "message": each} for each in entries]
    return {"entries": listed, "cursor": cursor, "missed": 0, "shortened": 0}


async def follow(*answers: dict[str, Any] | Unanswered) -> Scripted:
    daemon = Scripted(*answers)
    work = tail_entries(dict.fromkeys(("start_time", "end_time", "data_path")), 10, "raw", Style(), follow=True)
    with pytest.raises(Unanswered, match="the end"):
        await work(cast("Daemon", daemon))
    return daemon


async def test_a_cursor_that_is_refused_ends_nothing_and_is_told(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a failover `godot tail -f` ended, with an exit code that blames whoever typed it."""
    daemon = await follow(page("1", "old"), REFUSED, page("2"), page("3", "new"))
    out, err = capsys.readouterr()
    assert out.splitlines() == ["old", "new"]
    assert err.count("\n") == 1
    assert "of another database" in err
    assert "may be missing here" in err
    assert [(each.get("cursor"), each.get("last")) for each in daemon.asked] == [
        (None, 10), ("1", None), (None, 0), ("2", None), ("3", None)
    ]  # fmt: skip


async def test_it_also_waits_for_a_daemon_that_goes_away_right_then_and_does_not_claim_that_nothing_is_missing(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await follow(page("1"), AWAY, REFUSED, AWAY, page("2"), REFUSED, page("3"), page("4", "new"))
    out, err = capsys.readouterr()
    assert out.splitlines() == ["new"]
    assert err.count("may be missing here") == 2
    assert "nothing is missing" not in err
