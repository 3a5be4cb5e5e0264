"""How `godot status` and `godot doctor` word what they hear."""

from __future__ import annotations

from typing import Any, cast

import pytest

from godot.cli.daemon import Daemon, Style, Unanswered
from godot.cli.doctor import there
from godot.cli.state import show_status
from godot.cli.target import Target
from godot.mcp.websocket.dial import Address

ADDRESS = "ws://127.0.0.1:9"


class FakeDaemon:
    """Answers this, or raises it."""

    def __init__(self, answer: dict[str, Any] | Unanswered) -> None:
        self.answer = answer
        self.target = Target(Address.parse(ADDRESS), None)

    async def ask(self, *_: object, **__: object) -> dict[str, Any]:
        if isinstance(self.answer, Unanswered):
            raise self.answer
        return self.answer


async def test_the_sentence_about_durability_does_not_push_the_numbers_out_of_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sentence = "Redis does not have every write on disk before it answers (appendonly no): set it " * 3
    state = {"received": 1_234, "durable": False, "redis": "up", "dewey": "up", "not_durable": sentence}
    daemon = cast("Daemon", FakeDaemon(state))
    assert await show_status(Style(width=80), as_json=False)(daemon) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "received  1,234"
    assert max(map(len, lines)) <= 80
    assert " ".join(lines[5:]) == f"not durable: {sentence.strip()}"


@pytest.mark.parametrize(
    ("why", "refusal", "what", "advice"),
    [
        ("HTTP 401, a token is needed", 401, "wants another token (HTTP 401, a token is needed)", "--token-file or"),
        ("HTTP 403, not called x; see Y", 403, "lets nobody in by this name (HTTP 403, not called x; see Y)", ""),
        ("it answered HTTP 503, all taken; see Y", 503, "is busy (it answered HTTP 503, all taken; see Y)", "raise"),
        ("logger_status needs the role read", -32602, "answers, and refuses", "logger_status needs the role read"),
        ("too large", 1009, "has ended the connection", "too large"),
        ("Connection refused", None, f"no daemon answers at {ADDRESS} (Connection refused)", "start one"),
    ],
)
async def test_a_daemon_that_refuses_is_not_taken_for_none(
    why: str, refusal: int | None, what: str, advice: str
) -> None:
    text = f"cannot connect to {ADDRESS}: {why}"
    (finding,) = await there(cast("Daemon", FakeDaemon(Unanswered(text, refusal=refusal))))
    assert finding.verdict == "bad"
    assert what in finding.what
    assert advice in finding.advice
    assert ("no daemon" in finding.what) is (refusal is None)
