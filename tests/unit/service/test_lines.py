"""Lines for the operator: what they look like, and that nobody waits for their reader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from godot.service.lines import MAX_BYTES, MAX_LINES, Lines, logfmt
from tests.programs import parse_logfmt
from tests.terminals import stuck

# What a line looks like.


def test_a_line_is_logfmt_with_its_time_in_utc_first() -> None:
    """MAINT-001."""
    before = datetime.now(UTC)
    line = logfmt("dewey_down", queued=7, drained=True, lost=False)
    assert re.fullmatch(r"time=\S+Z event=dewey_down queued=7 drained=true lost=false", line)
    moment = datetime.fromisoformat(parse_logfmt(line)["time"])
    assert -1 < (moment - before).total_seconds() < 5


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("ws://127.0.0.1:9060", "ws://127.0.0.1:9060"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("C:\\a b", r'"C:\\a b"'),
        ("several\nlines\r\n\tand   blanks", '"several lines and blanks"'),
        ("ü", "ü"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m red \x00", r'"\x9b31m red \x00"'),
        ("half \ud800", '"half \ud800"'),
        (None, "None"),
    ],
)
def test_a_value_is_quoted_when_it_would_not_be_one_word(value: object, written: str) -> None:
    assert logfmt("x", reason=value).split(" ", 2)[2] == f"reason={written}"


# Writing.


PRINTS = """
import sys
from godot.service.lines import print_line
for _ in range(3):
    print_line({text!r})
print("lived", file=sys.stderr)
"""


def printing(text: str, stdout: int, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRINTS.format(text=text)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=10,
        env={**os.environ, **environ},
    )


def test_a_reader_of_stdout_that_is_gone_does_not_kill() -> None:
    """MAINT-001, REL-004: `godot serve | head -1` goes on."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = printing("hello", writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "lived\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_under_stdout_does_not_kill() -> None:
    with open("/dev/full", "w") as full:
        ended = printing("hello", full.fileno())
    assert ended.stderr.startswith("lived\n")


def test_what_stdout_cannot_encode_is_written_as_escapes() -> None:
    ended = printing("ü\ud800", subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\\xfc\\ud800\n" * 3, "lived\n")


# A reader that does not read.


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_what_finds_no_room_is_dropped_and_the_next_line_says_how_many_are_missing(kind: str) -> None:
    """MAINT-001, LIM-001."""
    with stuck(kind) as stream, open(stream.writer, "w", encoding="utf-8", closefd=False) as file:
        lines = Lines(file)
        for number in range(MAX_LINES + 500):
            lines.put(f"line {number}")
        assert lines.dropped == 500
        assert not lines.finish(time.monotonic() + 0.01), "nobody has read"
        assert stream.read(f"line {MAX_LINES - 1}\n").splitlines() == [f"line {n}" for n in range(MAX_LINES)]
        lines.put("the next one")
        notice, line = stream.read("the next one\n").splitlines()
        assert (parse_logfmt(notice)["event"], parse_logfmt(notice)["lines"], line) == (
            "lines_dropped",
            "500",
            "the next one",
        )
        lines.put("and another")
        assert stream.read("another\n") == "and another\n"
        assert lines.finish(time.monotonic() + 10)


@pytest.mark.parametrize("size", [1_000, 100_000, MAX_BYTES + 1])
def test_what_waits_for_a_reader_is_bounded_in_bytes_too(size: int) -> None:
    """LIM-001: what a peer said may be part of a line."""
    with stuck("pipe") as stream, open(stream.writer, "w", encoding="utf-8", closefd=False) as file:
        lines = Lines(file)
        for _ in range(MAX_LINES):
            lines.put("x" * (size - 1))
        assert lines.dropped == MAX_LINES - min(MAX_LINES, MAX_BYTES // size)


def test_parts_of_a_line_are_written_as_one_line() -> None:
    """As a traceback comes."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as file:
        lines = Lines(file)
        for part in ("Trace", "back\n  File", "\nlast"):
            print(part, end="", file=lines)
        assert lines.finish(time.monotonic() + 10)
    with open(reader, encoding="utf-8") as said:
        assert said.read() == "Traceback\n  File\nlast\n"


ENDS = """
import logging, sys, warnings
from godot.service.lines import free_stderr, print_line
free_stderr()
for number in range(2000):
    print_line(f"line {number}")
    print(f"error {number}", file=sys.stderr)
    warnings.warn(f"warning {number}")
    logging.getLogger("somebody").error("record %d", number)
sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_a_program_whose_stdout_and_stderr_nobody_reads_ends_with_its_own_code(kind: str) -> None:
    with stuck(kind) as out, stuck(kind) as err:
        ended = subprocess.run([sys.executable, "-c", ENDS], stdout=out.writer, stderr=err.writer, timeout=20)
    assert ended.returncode == 7


def test_a_crash_is_told_in_full_when_somebody_reads() -> None:
    script = "from godot.service.lines import free_stderr; free_stderr(); raise KeyError('gone')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback (most recent call last):\n")
    assert ended.stderr.endswith("KeyError: 'gone'\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_was_closed_before_the_start_is_no_error(closed: str) -> None:
    script = (
        "import sys; from godot.service.lines import free_stderr, print_line; "
        "free_stderr(); print_line('x'); sys.exit(5)"
    )
    ended = subprocess.run(["sh", "-c", f"'{sys.executable}' -c \"{script}\" {closed}"], timeout=20)
    assert ended.returncode == 5
