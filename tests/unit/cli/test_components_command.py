"""What `godot components` tells when not every question is answered."""

from __future__ import annotations

from typing import Any, cast

import pytest

from godot.cli.daemon import Daemon, Unanswered
from godot.cli.find import list_components
from godot.service.exits import EXIT_PARTIAL, EXIT_USAGE
from godot.toolnames import STATS


class FakeDaemon:
    """Counts, and answers no question about one of its components."""

    async def ask(self, tool: str, *, component: str = "", **_: object) -> dict[str, Any]:
        if tool == STATS:
            return {"by_component": {"gates": 2, "relay": 1}}
        if component == "gates":
            raise Unanswered("PostgreSQL refuses the query", EXIT_USAGE)
        return {"entries": [{"created_at": "2026-11-20T08:30:00.000000Z", "level": "INFO"}]}


async def test_one_question_that_fails_is_told_and_the_others_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """It once ended in a traceback, with the code for `nothing found`."""
    code = await list_components(as_json=False)(cast("Daemon", FakeDaemon()))
    said = capsys.readouterr()
    assert code == EXIT_PARTIAL
    assert "gates: PostgreSQL refuses the query" in said.err
    assert [line.split() for line in said.out.splitlines()[1:]] == [
        ["gates", "2"],
        ["relay", "1", "2026-11-20T08:30:00.000000Z"],
    ]
