"""How entries are written: for a reader, and for a program. Pure.

Law of this module: the text of a component reaches a terminal only through `harmless`, or as JSON, whose escapes a
terminal does not obey either.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from godot.json.text import dumps
from godot.service.lines import quoted

FORMATS: Final = ("pretty", "json", "logfmt", "csv", "raw")
COLUMNS: Final = ("created_at", "level", "component", "message", "trace_id", "data", "id", "ingested_at")

_COLORS: Final = {"ERROR": "1;31", "WARN": "33", "INFO": "32", "DEBUG": "36", "TRACE": "2"}
_DIM: Final = "2"
_ESCAPE: Final = re.compile("\x1b\\[[0-9;]*m")
_NAME_COLUMNS: Final = 12
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

Entry = Mapping[str, Any]


def harmless(text: str) -> str:
    """Escape all that is not printable: the text may be anybody's, and a terminal would obey it."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def counted(number: int, one: str = "entry", many: str = "entries") -> str:
    """Write a number of things for a reader."""
    return f"{number:,} {one if number == 1 else many}"


def paint(text: str, color: str, *, on: bool) -> str:
    """Colour a text, by the numbers of SGR."""
    return f"\x1b[{color}m{text}\x1b[0m" if on and text else text


def level_color(level: str) -> str:
    """Return the colour of a level."""
    return _COLORS.get(level, "0")


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return sum(_columns(each) for each in _ESCAPE.sub("", text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, columns: int) -> str:
    """Fill a text up with blanks."""
    return text + " " * (columns - columns_of(text))


def fit(text: str, columns: int | None) -> str:
    """Cut a text, which may be coloured, so that it takes no more columns; a cut shows as `…`."""
    if columns is None or columns_of(text) <= columns:
        return text
    kept, left = [], columns - 1
    for part in re.split(f"({_ESCAPE.pattern})", text):
        if _ESCAPE.fullmatch(part):
            kept.append(part)
            continue
        for char in part:
            if (left := left - _columns(char)) < 0:
                colored = any(_ESCAPE.fullmatch(each) for each in kept)
                return "".join(kept) + "…" + ("\x1b[0m" if colored else "")
            kept.append(char)
    return "".join(kept)


def pretty(entry: Entry, *, color: bool, width: int | None) -> str:
    """Return a line for a reader: time (UTC), level, component, message, and dim behind it trace and data."""
    time = str(entry["created_at"]).replace("T", " ")
    head = " ".join(
        [
            paint(f"{time[:-4]}Z" if time.endswith("Z") and "." in time else time, _DIM, on=color),
            paint(pad(entry["level"], 5), level_color(entry["level"]), on=color),
            paint(pad(harmless(entry["component"]), _NAME_COLUMNS), "1", on=color),
        ]
    )
    tail = []
    if entry.get("trace_id"):
        tail.append(f"trace={entry['trace_id']}")
    if entry.get("data"):
        tail.append(harmless(dumps(entry["data"]).decode()))
    line = f"{head} {harmless(entry['message'])}"
    return fit(f"{line}  {paint(' '.join(tail), _DIM, on=color)}" if tail else line, width)


def as_json(entry: Entry) -> str:
    """Return the entry as a line of JSON; control characters that JSON allows are escaped, too."""
    text = dumps(entry).decode()
    return text if text.isprintable() else "".join(map(_json_escape, text))


def _json_escape(char: str) -> str:
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def as_logfmt(entry: Entry) -> str:
    """Return the entry as `name=value` words; a value with blanks is quoted."""
    return " ".join(f"{name}={harmless(quoted(_text(entry[name])))}" for name in COLUMNS if entry.get(name) is not None)


def as_csv(entry: Entry) -> str:
    """Return the entry as a row (RFC 4180), which may contain line breaks in quotes.

    A spreadsheet would run a value that begins like a formula; it gets an apostrophe before it, as OWASP advises.
    """
    return csv_row([_inert(_text(entry.get(name))) for name in COLUMNS])


def csv_row(values: list[str]) -> str:
    """Return a row of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def renderer(output: str, *, color: bool, width: int | None) -> tuple[str | None, Callable[[Entry], str]]:
    """Return the heading, if there is one, and the function that makes a line of an entry.

    :param output: one of `FORMATS`.
    """
    match output:
        case "pretty":
            return None, lambda entry: pretty(entry, color=color, width=width)
        case "csv":
            # A field keeps its line breaks, unless it is for a terminal.
            return csv_row(list(COLUMNS)), as_csv if width is None else lambda entry: harmless(as_csv(entry))
        case "raw":  # the message as it is, unless it is for a terminal
            return None, lambda entry: str(entry["message"]) if width is None else harmless(entry["message"])
    return None, {"json": as_json, "logfmt": as_logfmt}[output]


def table(rows: list[list[str]], *, right: tuple[int, ...] = ()) -> list[str]:
    """Return rows as lines with aligned columns.

    :param right: columns (from 0) that are aligned to the right, as numbers are.
    """
    widths = [max(columns_of(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = [
            " " * (width - columns_of(cell)) + cell if number in right else pad(cell, width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _inert(text: str) -> str:
    return f"'{text}" if text.lstrip(" ")[:1] in _FORMULA else text


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dumps(value).decode()
