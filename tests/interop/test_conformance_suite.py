"""The official conformance suite, its server scenarios, at every version it knows, through `bridge.py`.

A scenario either runs here or is in `LEFT_OUT` with the reason, and so is every check within a scenario; one that is
new in the suite is in neither, and fails the first test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.interop import install
from tests.interop.bridge import bridge
from tests.interop.peers import run

SUITE: Final = "node_modules/@modelcontextprotocol/conformance/dist/index.js"

RUN: Final = {
    "server-initialize": ["2025-06-18", "2025-11-25"],
    "ping": ["2025-06-18", "2025-11-25"],
    "tools-list": ["2025-06-18", "2025-11-25", "2026-07-28"],
    "server-stateless": ["2026-07-28"],
    "server-sse-multiple-streams": ["2025-11-25", "2026-07-28"],
    "dns-rebinding-protection": ["2025-11-25", "2026-07-28"],
    "caching": ["2026-07-28"],
    "sep-2164-resource-not-found": ["2026-07-28"],
    "input-required-result-unsupported-methods": ["2026-07-28"],
}
"""Scenario -> the versions at which the suite has it."""

FORCED: Final = [(name, "2025-03-26") for name in ("server-initialize", "ping", "tools-list")]
"""The suite knows this version too, but has only a scenario of HTTP for it. (2024-11-05 it does not know.)"""

NO_TEST_TOOL = "needs a tool of the suite's own, which a flight recorder does not have"
NO_RESOURCES = "a server without resources: the method is not found (-32601)"
NO_PROMPTS = "a server without prompts: the method is not found (-32601)"
NO_ERA = (
    "a server/discover without an envelope has no version on a WebSocket, which has no headers: it is a method "
    "unknown to the version in force, and clients fall back to initialize"
)

EXCEPTIONS: Final = {
    "server-stateless": {
        "sep-2575-request-meta-invalid-missing-meta": NO_ERA,
        "sep-2575-request-meta-invalid-missing-protocol-version": NO_ERA,
        "sep-2575-http-server-meta-invalid-400": f"the HTTP status of these two: {NO_ERA}",
        "sep-2575-server-rejects-undeclared-capability": NO_TEST_TOOL,
        "sep-2575-missing-capability-http-400": NO_TEST_TOOL,
        "sep-2575-http-server-no-independent-requests-on-stream": NO_TEST_TOOL,
        "sep-2575-server-no-log-without-loglevel": NO_TEST_TOOL,
    },
    "caching": {
        "sep-2549-prompts-list-caching-hints": NO_PROMPTS,
        "sep-2549-resources-list-caching-hints": NO_RESOURCES,
        "sep-2549-resources-templates-list-caching-hints": NO_RESOURCES,
    },
    "sep-2164-resource-not-found": {
        "sep-2164-error-code": NO_RESOURCES,
        "sep-2164-data-uri": NO_RESOURCES,
    },
}
"""Checks that must not succeed: when one does, it goes from this table."""

HTTP_ONLY = "is about HTTP alone, which Godot does not speak: it would judge the bridge"
FEATURE = "is about {}, which Godot does not offer"

LEFT_OUT: Final = {
    **dict.fromkeys(
        ["server-session-lifecycle", "server-sse-polling", "http-header-validation"],
        HTTP_ONLY,
    ),
    "http-custom-header-server-validation": f"{HTTP_ONLY}; and it {NO_TEST_TOOL}",
    **dict.fromkeys(
        [
            "tools-call-simple-text",
            "tools-call-image",
            "tools-call-audio",
            "tools-call-embedded-resource",
            "tools-call-mixed-content",
            "tools-call-with-logging",
            "tools-call-error",
            "tools-call-with-progress",
            "tools-call-sampling",
            "tools-call-elicitation",
            "json-schema-2020-12",
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
            "input-required-result-basic-elicitation",
            "input-required-result-basic-sampling",
            "input-required-result-basic-list-roots",
            "input-required-result-request-state",
            "input-required-result-multiple-input-requests",
            "input-required-result-multi-round",
            "input-required-result-missing-input-response",
            "input-required-result-result-type",
            "input-required-result-tampered-state",
            "input-required-result-capability-check",
            "input-required-result-ignore-extra-params",
            "input-required-result-validate-input",
        ],
        NO_TEST_TOOL,
    ),
    "logging-set-level": FEATURE.format("MCP's own, deprecated, logging"),
    "completion-complete": FEATURE.format("completion"),
    **dict.fromkeys(
        [
            "resources-list",
            "resources-read-text",
            "resources-read-binary",
            "resources-templates-read",
            "resources-subscribe",
            "resources-unsubscribe",
        ],
        FEATURE.format("resources"),
    ),
    **dict.fromkeys(
        [
            "prompts-list",
            "prompts-get-simple",
            "prompts-get-with-args",
            "prompts-get-embedded-resource",
            "prompts-get-with-image",
            "input-required-result-non-tool-request",
        ],
        FEATURE.format("prompts"),
    ),
    **dict.fromkeys(
        ["sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest"],
        FEATURE.format("skills, an extension"),
    ),
    **dict.fromkeys(
        [
            "tasks-lifecycle",
            "tasks-capability-negotiation",
            "tasks-wire-fields",
            "tasks-request-state-removal",
            "tasks-mrtr-input",
            "tasks-request-headers",
            "tasks-dispatch-and-envelope",
            "tasks-status-notifications",
            "tasks-required-task-error",
            "tasks-mrtr-composition",
        ],
        FEATURE.format("tasks, an extension"),
    ),
}
"""Scenario -> why it is not run."""


async def test_every_scenario_of_the_suite_is_run_or_left_out_for_a_reason(installed: Path) -> None:
    listed = (await run([install.node(), SUITE, "list", "--server"], installed)).stdout.decode()
    versions = {name: tags.split(",") for name, tags in re.findall(r"^  - (\S+) \[(.*)\]$", listed, re.MULTILINE)}
    assert len(versions) > 60
    assert {name: tags for name, tags in versions.items() if name not in LEFT_OUT} == RUN
    assert not LEFT_OUT.keys() - versions.keys()
    assert EXCEPTIONS.keys() <= RUN.keys()


@pytest.mark.parametrize(
    ("scenario", "version"),
    [*((name, version) for name, versions in RUN.items() for version in versions), *FORCED],
)
async def test_a_scenario_of_the_conformance_suite_passes(
    scenario: str, version: str, godot: str, installed: Path, tmp_path: Path
) -> None:
    async with bridge(godot) as url:
        options = ["--scenario", scenario, "--spec-version", version, "--force", "--output-dir", str(tmp_path)]
        ended = await run([install.node(), SUITE, "server", "--url", url, *options], installed)
    checks = _checks(tmp_path)
    assert any(check["status"] == "SUCCESS" for check in checks), ended.stdout.decode()
    failed = {check["id"]: check["errorMessage"] for check in checks if check["status"] in {"FAILURE", "WARNING"}}
    assert failed.keys() == EXCEPTIONS.get(scenario, {}).keys(), failed


def _checks(directory: Path) -> list[dict[str, str]]:
    (result,) = directory.glob("*/checks.json")
    checks: list[dict[str, str]] = json.loads(result.read_text())
    return checks
