"""Says what is wrong with MCP messages, by the published schemas of the specification.

    python schema_checker.py SCHEMAS MODELS

Runs in the environment of the Python SDK 2.x, which has `jsonschema` and `pydantic`; Godot's own has neither. On stdin
comes one JSON object a line, `{"version": …, "message": …, "method": …}` (`method` is that of the request that a
response answers), on stdout goes a JSON list of faults for each. The schemas of four versions are those that the
conformance suite carries. That of 2024-11-05 it does not carry: that version is judged by the models of the official
Python SDK 1.7.1, the last to know no later one.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pydantic

DEADLINE_S = 30
"""For one message; whoever waits for an answer sees the end of this process instead."""

RESULTS = {
    "initialize": "InitializeResult",
    "ping": "EmptyResult",
    "server/discover": "DiscoverResult",
    "tools/call": "CallToolResult",
    "tools/list": "ListToolsResult",
}
REQUESTS = {"notifications/cancelled": "CancelledNotification", "tools/call": "CallToolRequest"}
ERRORS = {-32022: "UnsupportedProtocolVersionError"}

Judge = Callable[[Any], list[str]]


class JSONSchema:
    """A version that has a JSON Schema."""

    def __init__(self, path: Path) -> None:
        self._schema = json.loads(path.read_text())
        self._key = "$defs" if "$defs" in self._schema else "definitions"
        self.names = self._schema[self._key].keys()

    @cache  # noqa: B019 - lives as long as the process
    def judge(self, name: str) -> Judge:
        """Return what judges by one definition."""
        rules = {**self._schema, "$ref": f"#/{self._key}/{name}"}
        validator = jsonschema.validators.validator_for(rules)(rules)
        return lambda value: [f"{name}{fault.json_path[1:]}: {fault.message}" for fault in validator.iter_errors(value)]

    def fields(self, name: str) -> set[str]:
        """Return what is said of an object of that definition."""
        return set(self._schema[self._key][name].get("properties", ()))


class Models:
    """A version that has pydantic models."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location("models", path)
        assert spec is not None
        assert spec.loader is not None
        self._module = importlib.util.module_from_spec(spec)
        sys.modules["models"] = self._module
        spec.loader.exec_module(self._module)
        self.names = vars(self._module).keys()

    def judge(self, name: str) -> Judge:
        """Return what judges by one model."""

        def judge(value: Any) -> list[str]:
            try:
                getattr(self._module, name).model_validate(value, strict=True)
            except pydantic.ValidationError as exc:
                return [f"{name}: {fault['loc']}: {fault['msg']}" for fault in exc.errors()]
            return []

        return judge

    def fields(self, name: str) -> set[str]:
        """Return what the model has."""
        return {field.alias or key for key, field in getattr(self._module, name).model_fields.items()}


Schema = JSONSchema | Models


def faults_of(schema: Schema, message: Any, method: str | None) -> Iterator[str]:
    """Yield what is wrong with a message that Godot sent."""
    if isinstance(message, list):
        if "JSONRPCBatchResponse" not in schema.names:
            yield "a batch, which this version does not have"
        elif not message:
            yield "an empty batch"
        return  # its messages come one by one
    if "method" in message:
        yield from schema.judge(REQUESTS[message["method"]])(message)
        return
    if "error" in message:
        name = ERRORS.get(message["error"].get("code"), "")
        if name not in schema.names:
            name = _first(schema, "JSONRPCErrorResponse", "JSONRPCError")
        yield from schema.judge(name)(_with_id(message))
        return
    yield from schema.judge(_first(schema, "JSONRPCResultResponse", "JSONRPCResponse"))(message)
    if method is None:
        yield "a result that answers no request"
        return
    result = message.get("result")
    yield from schema.judge(RESULTS[method])(result)
    # The schemas let a result have further fields; ours has none but those of its version.
    for extra in sorted(result.keys() - schema.fields(RESULTS[method]) - {"_meta"}):
        yield f"{RESULTS[method]}: {extra} is no field of this version"


def _with_id(message: dict[str, Any]) -> dict[str, Any]:
    # Where the id of a request could not be read, JSON-RPC 2.0 (section 5) demands null. MCP's schemas do not have
    # that case up to 2025-06-18, and since let the id be left out; Godot stays with JSON-RPC.
    unreadable = "id" in message and message["id"] is None and message["error"].get("code") in {-32700, -32600}
    return {**message, "id": 0} if unreadable else message


def _first(schema: Schema, *names: str) -> str:
    return next(name for name in names if name in schema.names)


def main() -> None:
    """Judge until stdin ends."""
    schemas, models = (Path(argument) for argument in sys.argv[1:])
    by_version: dict[str, Schema] = {path.stem: JSONSchema(path) for path in schemas.glob("*.json")}
    by_version["2024-11-05"] = Models(models)
    for line in sys.stdin:
        signal.alarm(DEADLINE_S)
        asked = json.loads(line)
        faults = list(faults_of(by_version[asked["version"]], asked["message"], asked["method"]))
        sys.stdout.write(json.dumps(faults) + "\n")
        sys.stdout.flush()
        signal.alarm(0)


main()
