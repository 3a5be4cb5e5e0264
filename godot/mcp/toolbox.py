"""The table of tools: what a tool is, what its arguments are, and how it answers.

A tool's arguments are an attrs class whose fields are made with `argument`. This class gives the check of a client's
arguments (`godot.json.structure`), the JSON Schema that `tools/list` shows, and the type that the tool's function gets,
so that the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from godot.json.schema import object_schema
from godot.json.structure import DoesNotFit, did_you_mean, structure
from godot.json.text import dumps
from godot.mcp.errors import ToolError, UnknownTool

Role: TypeAlias = Literal["write", "read", "admin"]
"""What a token allows: to log, to read, or everything."""

ROLES: Final[frozenset[Role]] = frozenset(get_args(Role))

STRUCTURED_MAX_BYTES: Final = 16 * 1024
"""Larger results come as text only: the same JSON twice would bring them nearer to the 1 MiB at which common clients
drop the connection."""


INSIDE: Final = "inside"
"""The caller of a tool, if this process itself calls it."""

caller: Final[ContextVar[str]] = ContextVar("caller", default=INSIDE)
"""The address of the peer that called the tool."""

trace: Final[ContextVar[str | None]] = ContextVar("trace", default=None)
"""The trace id of the call, from its `_meta.traceparent`."""


@attrs.frozen
class Answer:
    """The answer of a tool.

    :param json: the result as JSON text; it is the text of the only content block.
    :param value: the same as an object, if it is to be sent as `structuredContent` too.
    """

    json: str
    value: Mapping[str, Any] | None = None
    is_error: bool = False

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Answer:
        """Answer with an object."""
        text = dumps(value).decode()
        return cls(text, value if len(text) <= STRUCTURED_MAX_BYTES else None)

    @property
    def kind(self) -> str | None:
        """The kind of fault, if a tool did nothing; None if it did its work, even if it refused every entry."""
        return (self.value or {}).get("kind") if self.is_error else None

    @classmethod
    def error(cls, exc: ToolError) -> Answer:
        """Answer with what went wrong: words for people, and the kind of fault for programs."""
        return cls(str(exc), {"error": str(exc), "kind": exc.kind, **exc.details()}, is_error=True)


@attrs.frozen
class Later:
    """Returned by a tool that is `in_order` or `waits`: that part is done, and the answer is still pending.

    :param answer: waits for the answer; other calls are served meanwhile.
    """

    answer: Callable[[], Awaitable[Answer]]


Runner: TypeAlias = Callable[[Any], Awaitable[Answer | Later]]
"""Runs a tool; called with an instance of the class of its arguments."""


@attrs.frozen(kw_only=True)
class Definition:
    """All that a tool is to its callers, but for its name: two programs may offer it under names of their own.

    :param arguments: an attrs class made with `argument`.
    :param role: needed to call it; `admin` may call everything.
    :param in_order: the next frame of a connection is read when this call has begun, so that the entries of one
        connection keep their order.
    :param waits: the call begins by waiting for an event only, so any number of these calls may do it at once. The work
        follows after the event, in `Later`.
    """

    title: str
    description: str
    arguments: type[Any]
    role: Role = "admin"
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    in_order: bool = False
    waits: bool = False


@attrs.frozen(kw_only=True)
class Tool(Definition):
    """One tool of the table.

    :param run: begins the call, with an instance of `arguments`; raises `ToolError` for an answer that is an error.
    :param aliases: further names, not listed (deployed clients use them).
    """

    name: str
    run: Runner
    aliases: Sequence[str] = ()

    @classmethod
    def of(cls, definition: Definition, name: str, run: Runner, *, more: str = "", aliases: Sequence[str] = ()) -> Tool:
        """Offer a tool under a name.

        :param more: sentences for this name only, added to its description.
        """
        fields = attrs.asdict(definition, recurse=False)
        fields["description"] = f"{definition.description} {more}".rstrip()
        return cls(name=name, run=run, aliases=aliases, **fields)

    def allowed(self, roles: frozenset[Role]) -> bool:
        """Whether a client with these roles may call it."""
        return self.role in roles or "admin" in roles

    async def begin(self, arguments: object) -> Answer | Later:
        """Check the arguments and run the tool; every `ToolError` becomes an answer.

        Cancellation passes through.
        """
        try:
            return await self.run(self._checked(arguments))
        except ToolError as exc:
            return Answer.error(exc)

    async def finish(self, begun: Answer | Later) -> Answer:
        """Wait for the answer of a tool that has begun."""
        if isinstance(begun, Answer):
            return begun
        try:
            return await begun.answer()
        except ToolError as exc:
            return Answer.error(exc)

    async def call(self, arguments: object) -> Answer:
        """Run the tool to its end."""
        return await self.finish(await self.begin(arguments))

    def _checked(self, arguments: object) -> Any:
        """Return an instance of `self.arguments`.

        :raises ToolError: naming every argument at fault.
        """
        try:
            return structure(arguments, self.arguments)
        except DoesNotFit as exc:
            raise ToolError(str(exc)) from None

    def listing(self) -> dict[str, Any]:
        """Describe the tool as `tools/list` does (fields of every protocol version)."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": object_schema(self.arguments),
            "annotations": {
                "title": self.title,
                "readOnlyHint": self.read_only,
                "destructiveHint": self.destructive,
                "idempotentHint": self.idempotent,
                "openWorldHint": False,
            },
        }


class Toolbox:
    """The tools that one server offers, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._listings = {name: tool.listing() for name, tool in self._tools.items()}
        self._by_any_name = {name: tool for tool in self._tools.values() for name in (tool.name, *tool.aliases)}

    def find(self, name: str) -> Tool:
        """Return the tool of that name or alias.

        :raises UnknownTool: naming the tool that was probably meant.
        """
        try:
            return self._by_any_name[name]
        except KeyError:
            raise UnknownTool(f"Unknown tool: {name:.200}{did_you_mean(name, self._tools)}") from None

    def listing(self, roles: frozenset[Role] = ROLES) -> list[dict[str, Any]]:
        """Describe for `tools/list` the tools that these roles may call, always in the same order."""
        return [self._listings[name] for name, tool in self._tools.items() if tool.allowed(roles)]
