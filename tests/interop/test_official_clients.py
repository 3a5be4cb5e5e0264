"""The official clients, Python and TypeScript, 1.x and 2.x, in every mode they have, against `godot up`.

Each holds the same conversation: connect, list, call three tools, call one with bad arguments, call one that does
not exist, close. What it saw is judged here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop import install
from tests.interop.peers import report

CLIENTS: Final = Path(__file__).parent / "clients"
TOOLS: Final = [
    "logger_log",
    "logger_log_batch",
    "logger_query",
    "logger_tail",
    "logger_stats",
    "logger_status",
    "logger_set_level",
    "logger_get_level",
    "logger_clear",
    "logger_pin",
    "logger_dead",
    "logger_dead_retry",
    "logger_dead_purge",
]

MODES: Final = [
    ("python_sdk_1", "legacy", "2025-11-25"),
    ("python_sdk_2", "legacy", "2025-11-25"),
    ("python_sdk_2", "auto", "2026-07-28"),
    ("python_sdk_2", "2026-07-28", "2026-07-28"),
    ("python_sdk_2", "2026-07-28+discovered", "2026-07-28"),
    ("typescript_sdk_1", "legacy", "2025-11-25"),
    ("typescript_sdk_2", "legacy", "2025-11-25"),
    ("typescript_sdk_2", "auto", "2026-07-28"),
    ("typescript_sdk_2", "pinned", "2026-07-28"),
    ("typescript_sdk_2", "prior", "2026-07-28"),
    ("typescript_sdk_2", "2024-11-05", "2024-11-05"),
    ("typescript_sdk_2", "2025-03-26", "2025-03-26"),
    ("typescript_sdk_2", "2025-06-18", "2025-06-18"),
    ("typescript_sdk_2", "2025-11-25", "2025-11-25"),
]


@pytest.mark.parametrize(("client", "mode", "version"), MODES, ids=[f"{name}-{mode}" for name, mode, _ in MODES])
async def test_an_official_client_lists_and_calls_and_is_told_what_was_wrong(
    client: str, mode: str, version: str, godot: str, installed: Path
) -> None:
    """GOD-000, issue 3."""
    seen = await report(_command(client, godot, mode), installed)

    assert seen["protocol"] == version
    # Python's client that is told the version asks for nothing before its first call, so it knows nothing.
    if (client, mode) != ("python_sdk_2", "2026-07-28"):
        assert seen["server"]["name"] == "godot"
        assert seen["capabilities"] == {"tools": {}}
        assert "flight recorder" in seen["instructions"]

    assert [tool["name"] for tool in seen["tools"]] == TOOLS
    assert all(tool["description"] and tool["inputSchema"]["type"] == "object" for tool in seen["tools"])

    assert _value(seen["log"], version)["status"] == "queued"
    assert isinstance(_value(seen["query"], version)["entries"], list)
    assert _value(seen["status"], version)["redis"] == "up"

    assert seen["bad_arguments"]["isError"] is True
    assert seen["bad_arguments"]["content"][0]["text"].startswith("component: must be a string, not a number")
    assert seen["unknown_tool"]["code"] == -32602
    assert "Unknown tool: logger_lag; did you mean 'logger_log'?" in seen["unknown_tool"]["message"]


def _command(client: str, url: str, mode: str) -> list[str | Path]:
    if client.startswith("python"):
        return [install.interpreter(client.replace("_", "-")), CLIENTS / f"{client}.py", url, mode]
    return [install.node(), CLIENTS / f"{client}.mjs", url, mode]


def _value(result: dict[str, Any], version: str) -> dict[str, Any]:
    """Return what a tool answered: its text, and where the version has it the same as structured content."""
    assert not result["isError"]
    (block,) = result["content"]
    value = json.loads(block["text"])
    assert isinstance(value, dict)
    assert result.get("structuredContent", value) == value
    if version < "2025-06-18":
        assert "structuredContent" not in result
    return value
