"""A trace, told: who called whom, in order, with durations. Pure.

A JSON-RPC message is recognised in the data of an entry: as the data itself (components log it so at TRACE), or under
`message`, `request` or `response`. The other side is named in the data, by `to` or `from`, or by `peer` with
`direction`. An entry with none of this is told as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from godot.cli.render import Entry, counted, fit, harmless, level_color, pad, paint

_INDENT: Final = "  "
_NESTED: Final = ("message", "request", "response", "rpc")
_OUT: Final = frozenset({"out", "outgoing", "sent", "send", "->"})
_IN: Final = frozenset({"in", "incoming", "received", "receive", "<-"})
_DIM: Final = "2"
_BOLD: Final = "1"


@attrs.frozen
class Message:
    """What an entry says of a JSON-RPC message.

    :param to: who gets it, as far as the entry says; at most one of `to` and `sender` is known.
    """

    rpc: Mapping[str, Any]
    to: str | None
    sender: str | None

    @property
    def is_request(self) -> bool:
        """Whether it asks for something, or notifies."""
        return "method" in self.rpc

    @property
    def what(self) -> str:
        """Name it: the method, and the tool, prompt or resource that it is about."""
        method = str(self.rpc.get("method", ""))
        params = self.rpc.get("params")
        name = params.get("name") or params.get("uri") if isinstance(params, Mapping) else None
        return f"{method} {name}" if isinstance(name, str) else method


def read_message(entry: Entry) -> Message | None:
    """Find the JSON-RPC message in an entry, if there is one."""
    data = entry.get("data")
    if not isinstance(data, Mapping):
        return None
    candidates = [data, *(data.get(name) for name in _NESTED)]
    rpc = next((each for each in candidates if isinstance(each, Mapping) and "jsonrpc" in each), None)
    if rpc is None:
        return None
    to, sender = data.get("to"), data.get("from")
    if to is None and sender is None and isinstance(peer := data.get("peer"), str):
        direction = str(data.get("direction", "")).lower()
        to, sender = (peer if direction in _OUT else None), (peer if direction in _IN else None)
    return Message(rpc, _name(to), _name(sender))


def tell(trace_id: str, entries: Sequence[Entry], *, color: bool, width: int | None) -> Iterator[str]:
    """Yield the lines of a story.

    :param entries: all of the trace, oldest first.
    """
    began = _seconds(entries[0])
    took = _seconds(entries[-1]) - began
    components = list(dict.fromkeys(entry["component"] for entry in entries))
    errors = sum(entry["level"] == "ERROR" for entry in entries)
    yield paint(f"trace {trace_id}", _BOLD, on=color)
    yield " ".join(
        [
            f"{counted(len(entries), 'entry', 'entries')} of {counted(len(components), 'component', 'components')}"
            f" ({', '.join(map(harmless, components))}),",
            f"{duration(took)}, {str(entries[0]['created_at'])[:19]}Z,",
            paint(counted(errors, "error", "errors"), level_color("ERROR"), on=color) if errors else "no errors",
        ]
    )
    yield ""
    depths: dict[str, int] = {}
    asked: dict[tuple[str, str, str], tuple[float, str]] = {}
    names = max(len(harmless(component)) for component in components)
    for entry in entries:
        component, message = entry["component"], read_message(entry)
        at = _seconds(entry)
        depth = depths.setdefault(component, 0)
        if message is None:
            text = harmless(entry["message"])
        else:
            if message.is_request and message.to is not None:
                depths.setdefault(message.to, depth + 1)
            text = _told(component, message, at, asked) or harmless(entry["message"])
            if (said := harmless(entry["message"])) and said not in text:
                text = f"{text}  {paint(said, _DIM, on=color)}"
        offset = f"+{duration(at - began)}"
        yield fit(
            f"{offset:>10}  {paint(pad(entry['level'], 5), level_color(entry['level']), on=color)}  "
            f"{paint(pad(harmless(component), names), _BOLD, on=color)}  {_INDENT * depth}"
            f"{paint(text, level_color('ERROR'), on=color) if entry['level'] == 'ERROR' else text}",
            width,
        )
    waiting = [f"{what} of {harmless(key[0])}" for key, (_, what) in asked.items()]
    if waiting:
        yield ""
        yield f"without an answer: {', '.join(waiting)}"


def _told(component: str, message: Message, at: float, asked: dict[tuple[str, str, str], tuple[float, str]]) -> str:
    """Word a message, and pair a response with its request by component, other side and id."""
    arrow = ""
    if message.to is not None:
        arrow = f"→ {harmless(message.to)}  "
    elif message.sender is not None:
        arrow = f"← {harmless(message.sender)}  "
    key = (component, message.to or message.sender or "", str(message.rpc.get("id")))
    if message.is_request:
        if "id" in message.rpc:
            asked[key] = at, harmless(message.what)
        return f"{arrow}{harmless(message.what)}"
    sent_at, what = asked.pop(key, (None, ""))
    outcome, detail = _outcome(message.rpc)
    after = "" if sent_at is None else f" after {duration(at - sent_at)}"
    return f"{arrow}{outcome}{f' of {what}' if what else ''}{after}{f': {detail}' if detail else ''}"


def _outcome(rpc: Mapping[str, Any]) -> tuple[str, str]:
    """Say how a request ended, and with what."""
    if isinstance(error := rpc.get("error"), Mapping):
        return "error", harmless(f"{error.get('message', '')} ({error.get('code', '')})")
    result = rpc.get("result")
    if isinstance(result, Mapping) and result.get("isError") is True:
        content = result.get("content")
        first = content[0] if isinstance(content, Sequence) and content else {}
        text = first.get("text", "") if isinstance(first, Mapping) else ""
        return "error", harmless(str(text))
    if isinstance(result, Mapping):
        for listed in ("tools", "prompts", "resources"):
            if isinstance(result.get(listed), Sequence):
                return "result", counted(len(result[listed]), listed[:-1], listed)
    return "result", ""


def duration(seconds: float) -> str:
    """Write a duration for a reader."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(entry: Entry) -> float:
    return datetime.fromisoformat(str(entry["created_at"])).timestamp()
