"""The commands as people and scripts use them: the real binary, through a pipe and in a terminal, on a real daemon."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import pytest
import trio

from tests.programs import BIN, ENOUGH, Workplace, workplace
from tests.terminals import Terminal


@attrs.frozen
class Ended:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@attrs.frozen
class Shell:
    """Somebody who types commands at a daemon."""

    place: Workplace
    url: str

    def environ(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("GODOT_") and name != "NO_COLOR"
        }
        return kept | {"GODOT_URL": self.url, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more

    def command(self, *arguments: object) -> list[str]:
        return [str(BIN / "godot"), *map(str, arguments)]

    def run(self, *arguments: object, stdin: str = "", **environ: str) -> Ended:
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=ENOUGH,
            env=self.environ(**environ),
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def until(self, *arguments: object, code: int = 0) -> Ended:
        """Run a command again and again until it ends so: an entry may be found a moment after it was logged."""
        ends = time.monotonic() + ENOUGH
        while (done := self.run(*arguments)).code != code:
            assert time.monotonic() < ends, done
        return done

    def terminal(self, *arguments: object, **environ: str) -> Terminal:
        return Terminal(self.command(*arguments), self.environ(**environ))

    def modules_of(self, *arguments: object) -> set[str]:
        """Return the names of the packages that a command imports."""
        done = subprocess.run(
            [BIN / "python", "-X", "importtime", *self.command(*arguments)], capture_output=True, text=True, check=True,
            timeout=ENOUGH, env=self.environ(),
        )  # fmt: skip
        return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}

    def start(self, *arguments: object, **environ: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environ(**environ),
        )  # fmt: skip


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with workplace() as place:
        program = place.up()
        yield Shell(place, trio.run(program.ready))


def seen(answer: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.lines]


# Finding.


def test_what_is_logged_is_found_and_told(shell: Shell) -> None:
    trace = "4739a825-ad33-4958-853b-87d12479c5d4"
    logged = shell.run("log", "warn", "the door is open", "-c", "door", "-t", trace, "-d", '{"floor": 3}')
    assert (logged.code, logged.err) == (0, "")
    (found,) = seen(shell.until("query", "door open", "-c", "do*", "-l", "info", "-S", "5m", "-t", trace, "-o", "json"))
    assert found["id"] == logged.out.strip()
    assert (found["component"], found["level"], found["data"]) == ("door", "WARN", {"floor": 3})
    assert shell.run("query", "--data", '{"floor": 4}', "-c", "door").code == 1
    assert shell.run("query", "--contains", "OOR IS", "-c", "door", "-o", "raw").out == "the door is open\n"
    assert "the door is open" in shell.run("trace", trace).out
    assert shell.run("tail", "-n", "1", "-c", "door", "-o", "raw").out == "the door is open\n"


def test_nothing_found_is_1_and_says_so_on_stderr_only(shell: Shell) -> None:
    for arguments in (
        ("query", "-c", "nobody"),
        ("trace", "01a1fc45-61b4-76c5-87bf-2055fe4623ee"),
        ("export", "-c", "x"),
    ):
        nothing = shell.run(*arguments)
        assert (nothing.code, nothing.out) == (1, "")
        assert nothing.err.startswith(f"godot {arguments[0]}: nothing was found")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("query", "-S", "yesterday"), "write it as 15m or 2h"),
        (("query", "-l", "loud"), "there are ERROR, WARN"),
        (("query", "-t", "12"), "no UUID"),
        (("query", "--data", "[1]"), "no JSON object"),
        (("query", "--data-path", "$$$"), "data_path: not an SQL/JSON path"),
        (("tail", "-f", "-S", "5m"), "cannot be combined"),
        (("clear",), "say what to delete"),
        (("clear", "-c", "x"), "say --yes"),
        (("levle",), "did you mean level?"),
        (("level", "--for", "5m"), "takes a component"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(shell: Shell, arguments: tuple[str, ...], problem: str) -> None:
    wrong = shell.run(*arguments)
    assert (wrong.code, wrong.out) == (2, "")
    assert problem in wrong.err


def test_an_unreachable_daemon_is_3(shell: Shell) -> None:
    for arguments in (("query",), ("tail", "-f"), ("stats",), ("log", "INFO", "x"), ("status",), ("trace", "0" * 32)):
        gone = shell.run(*arguments, "--url", "ws://127.0.0.1:9")
        assert (gone.code, gone.out) == (3, "")
        assert "ws://127.0.0.1:9: Connection refused" in gone.err
    assert shell.run("healthcheck", "--url", "ws://127.0.0.1:9").code == 1


def test_the_daemon_of_godot_up_is_found_by_itself(shell: Shell) -> None:
    assert shell.run("healthcheck", GODOT_URL="", GODOT_DATA_DIR=str(shell.place.data)).code == 0


@pytest.mark.parametrize(
    "environ",
    [{"GODOT_DATA_DIR": "{data}"}, {"GODOT_HTTP_PORT": "{http}"}, {"GODOT_PORT": "{before}", "GODOT_HOST": "0.0.0.0"}],
    ids=["by what godot up says", "by the port for HTTP", "by the port for MCP"],
)
def test_a_daemon_with_tokens_and_ports_of_its_own_is_healthy(environ: dict[str, str]) -> None:
    """MAINT-003: an orchestrator has no token, and would restart what is not healthy."""
    with workplace() as place:
        tokens = place.path / "tokens"
        tokens.write_text("write 0123456789abcdef0123456789abcdef\n")
        program = place.up(GODOT_TOKENS_FILE=tokens)
        trio.run(program.ready)
        port = int(program.http.rpartition(":")[2])
        shell = Shell(place, "")
        values = {"data": place.data, "http": port, "before": port - 1}
        given = {name: value.format(**values) for name, value in environ.items()}
        assert shell.run("healthcheck", **given) == Ended(0, "", "")
        assert shell.run("healthcheck", "--url", program.http) == Ended(0, "", "")
        # As in a container whose programs log, too.
        for beside in ({"GODOT_HTTP_PORT": str(port)}, {"GODOT_DATA_DIR": str(place.data)}):
            assert shell.run("healthcheck", GODOT_URL=program.mcp, **beside) == Ended(0, "", "")
        elsewhere = shell.run("healthcheck", "--url", program.mcp, GODOT_HTTP_PORT="9", GODOT_DATA_DIR=str(place.path))
        assert "a token is needed" in elsewhere.err
        gone = shell.run("healthcheck", "--url", "http://127.0.0.1:9")
        assert (gone.code, gone.err) == (1, "godot healthcheck: http://127.0.0.1:9: Connection refused\n")


def test_what_a_daemon_refuses_is_told_in_its_words_by_every_command(tmp_path: Path) -> None:
    """A daemon that is full, wants a token or a role, or gets too large a message is there, and nothing else is."""
    write, read = "write-0123456789abcdef", "read-0123456789abcdef"
    with workplace() as place:
        tokens = place.path / "tokens"
        tokens.write_text(f"write {write}\nread {read}\n")
        program = place.up(GODOT_TOKENS_FILE=tokens, GODOT_MAX_CONNECTIONS=1, GODOT_MAX_MESSAGE_BYTES=4_000)
        shell = Shell(place, trio.run(program.ready))
        needless = ("no daemon answers", "something else", "(-32", "not known; ")

        def told(*arguments: object, token: str, code: int, stdin: str = "") -> str:
            done = shell.run(*arguments, stdin=stdin, GODOT_TOKEN=token)
            assert done.code == code, done
            assert not [each for each in needless if each in done.out + done.err], done
            return done.out + done.err

        assert "HTTP 401, a token is needed" in told("status", token="", code=3)
        assert "bad   the daemon at" in (doctor := told("doctor", token="wrong-0123456789abcdef", code=1))
        assert "wants another token (HTTP 401, this token is not known)" in doctor
        refusal = "logger_status needs the role read; this token has write"
        assert told("status", token=write, code=2).strip() == f"godot status: {shell.url}: {refusal}"
        assert f"answers, and refuses: {refusal}" in told("doctor", token=write, code=1)

        limit = "GODOT_MAX_MESSAGE_BYTES allows 4,000: send it in parts"
        assert limit in told("log", "INFO", "y" * 5_000, token=write, code=2)
        entry = {"component": "file", "level": "INFO"}
        lines = [json.dumps(entry | {"message": each}) for each in (*"abcdefghijklmnopqrst" * 4, "y" * 5_000, "last")]
        *complaints, counts = told("ingest", "-", stdin="\n".join(lines), token=write, code=4).splitlines()
        # The only place is taken until the connection that is refused is over; then it comes in again.
        complaints = [each for each in complaints if not each.endswith("trying again for 60 s")]
        assert [each.partition(" are too large: a message of ")[0] for each in complaints] == [
            f"godot ingest: line 81: {len(lines[80]):,} bytes"
        ]
        assert limit in complaints[0]
        assert counts == "godot ingest: 81 entries taken in and on disk, 1 line refused"
        assert limit in trio.run(program.event, "refused")["reason"] or program.events("refused")

        tail = shell.start("tail", "-f", GODOT_TOKEN=read)
        try:
            ends = time.monotonic() + ENOUGH
            while (full := shell.run("status", GODOT_TOKEN=read)).code != 3:
                assert time.monotonic() < ends, full
            words = "all 1 connections are in use; see GODOT_MAX_CONNECTIONS"
            assert words in full.err
            assert f"is busy (it answered HTTP 503, {words})" in told("doctor", token=read, code=1)
        finally:
            tail.send_signal(signal.SIGINT)
            tail.communicate(timeout=ENOUGH)


# Sending.


@pytest.mark.parametrize("lines", [1, 3])
def test_a_file_of_which_every_line_is_refused_is_told_line_by_line(shell: Shell, tmp_path: Path, lines: int) -> None:
    file = tmp_path / "loud.jsonl"
    file.write_text('{"component":"a","level":"LOUD","message":"m"}\n' * lines)
    sent = shell.run("ingest", file)
    *complaints, counts = sent.err.splitlines()
    assert [each.partition(": level: must be one of")[0] for each in complaints] == [
        f"godot ingest: line {number}" for number in range(1, lines + 1)
    ]
    assert counts.startswith("godot ingest: 0 entries taken in, ")
    assert sent.code == 4


def test_a_file_that_cannot_be_read_is_told_in_a_line(shell: Shell) -> None:
    sent = shell.run("ingest", "/proc/self/mem")
    assert sent.code == 2
    assert sent.err.splitlines()[-1] == "godot ingest: line 1 and what follows cannot be read (Input/output error)"
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *shell.command("ingest", "-")],
        capture_output=True, text=True, timeout=ENOUGH, env=shell.environ(), check=False,
    )  # fmt: skip
    assert (closed.returncode, closed.stderr) == (2, "godot ingest: stdin is closed\n")


def test_a_file_is_ingested_once_however_often_it_is_sent(shell: Shell, tmp_path: Path) -> None:
    """MCP-003: bad lines are named, and do not stop the others."""
    file = tmp_path / "entries.ndjson"
    good = {"component": "file", "level": "INFO", "message": "same"}
    count = 1_200
    numbered = [json.dumps(good | {"message": f"line {n}"}) for n in range(count)]
    file.write_text(
        "\n".join([json.dumps(good), "garbage", json.dumps(good | {"level": "LOUD"}), "", json.dumps(good), *numbered])
    )
    for _ in range(2):
        sent = shell.run("ingest", file)
        assert (sent.code, sent.out) == (4, "")
        complaints = sent.err.splitlines()
        assert complaints[0] == "godot ingest: line 2: not JSON: expecting value at character 1"
        assert complaints[1].startswith("godot ingest: line 3: level: must be one of")
        assert complaints[-1] == (
            "godot ingest: 1,202 entries taken in and on disk, 2 lines refused; "
            "those that came from this file before are stored once"
        )
    log = shell.run("log", "INFO", "last", "-c", "file").out.strip()
    while log not in (exported := shell.run("export", "-c", "file")).out:
        pass
    assert len(exported.lines) == count + 3
    again = shell.run("ingest", "-", stdin=exported.out)
    assert again.code == 0
    assert len(shell.run("export", "-c", "file", "-o", "csv").lines) == count + 4


def test_equal_lines_of_two_files_are_each_stored_and_a_file_that_is_sent_again_is_not(
    shell: Shell, tmp_path: Path
) -> None:
    """MCP-003: lines that bring neither an id nor a time, as `service started` of two programs."""
    line = json.dumps({"component": "twins", "level": "INFO", "message": "service started"}) + "\n"
    first, second = (tmp_path / name / "app.log" for name in ("a", "b"))
    for file in (first, second):
        file.parent.mkdir()
        file.write_text(line)

    def stored_after(*sent: object) -> int:
        assert shell.run("ingest", *sent).code == 0
        # Entries are stored in their order: when this one is, so is what was sent before.
        last = shell.run("log", "INFO", "last", "-c", "after").out.strip()
        while last not in shell.run("export", "-c", "after").out:
            pass
        return len(shell.run("export", "-c", "twins").lines)

    assert stored_after(first) == 1
    assert stored_after(second) == 2, "another file of the same name"
    assert stored_after(first) == 2, "sent again"
    with first.open("a") as log:
        log.write(line)
    assert stored_after(first) == 3, "the same line once more, in a file that has grown"
    rotated = first.rename(tmp_path / "a" / "app.log.1")
    assert stored_after(rotated) == 3, "renamed by rotation"
    first.write_text(line)
    assert stored_after(first) == 4, "today's file has the name of yesterday's"
    assert stored_after("--again", first) == 5


def test_a_file_that_was_emptied_and_filled_anew_is_stored_from_where_it_differs(shell: Shell, tmp_path: Path) -> None:
    """What --help says of copytruncate."""
    file = tmp_path / "rot.log"
    first, second, third = (
        json.dumps({"component": "rot", "level": "INFO", "message": each}) + "\n" for each in ("a", "b", "c")
    )

    def stored_after(text: str, *options: str) -> int:
        file.write_text(text)
        sent = shell.run("ingest", *options, file)
        assert sent.code == 0
        assert ("those that came from this file before are stored once" in sent.err) is not bool(options)
        last = shell.run("log", "INFO", "last", "-c", "after").out.strip()
        while last not in shell.run("export", "-c", "after").out:
            pass
        return len(shell.run("export", "-c", "rot").lines)

    assert stored_after(first + second) == 2
    assert stored_after(first + third) == 3
    assert stored_after(third + first) == 5
    assert stored_after(third + first, "--again") == 7


def test_the_demo_reads_as_a_story(shell: Shell) -> None:
    demo = shell.run("demo")
    assert demo.code == 0
    commands = [line.split()[1:3] for line in demo.lines if line.startswith("  godot trace")]
    good, bad = (shell.run(*command) for command in commands)
    assert "← gates  result of tools/call gates_read_file after 19.8 ms" in good.out
    assert "error of tools/call fiedler_draft after 0.5 ms: No such tool available: fiedler_draft" in bad.out
    side_by_side = next(line for line in demo.lines if line.startswith("  godot query"))
    shown = shell.run(*shlex.split(side_by_side)[1:])
    tools = [json.loads(line)["data"]["result"]["tools"][0] for line in shown.lines]
    assert ["inputSchema" in tool for tool in tools] == [True, False]


# Operating.


def test_state_and_statistics(shell: Shell) -> None:
    """DEW-010, MAINT-001."""
    shell.run("log", "ERROR", "boom", "-c", "stats")
    shell.until("query", "-c", "stats")
    stats = json.loads(shell.run("stats", "-o", "json").out)
    assert stats["by_component"]["stats"] == 1
    lines = shell.run("stats").out
    assert f"entries  {stats['total']:,}" in lines
    assert "ERROR" in lines
    listed = next(line.split() for line in shell.run("components").lines if line.startswith("stats "))
    assert listed[1] == "1"
    status = json.loads(shell.run("status", "-o", "json").out)
    assert (status["redis"], status["dewey"]) == ("up", "up")
    assert shell.run("status").code == 0
    assert shell.run("healthcheck").code == 0
    doctor = shell.run("doctor")
    assert doctor.code == 0, doctor.out
    assert any(line.startswith("ok ") and "a daemon answers" in line for line in doctor.lines)


def test_settings_are_printed_without_secrets_and_checked(shell: Shell) -> None:
    """MAINT-004."""
    printed = shell.run("config", "print", DATABASE_URL="postgresql://dewey:secret@host/winni", BATCH_SIZE="7")
    assert printed.code == 0
    assert "secret" not in printed.out + printed.err
    assert "DATABASE_URL=postgresql://dewey:***@host/winni" in printed.out
    assert any(line.startswith("BATCH_SIZE=7 ") and "(default)" not in line for line in printed.lines)
    wrong = shell.run("config", "check", BATCH_SIZE="many", GODOT_HOST="0.0.0.0")
    assert wrong.code == 2
    assert "BATCH_SIZE: must be a whole number" in wrong.err


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, ""),
        ({"DATABASE_URL": ""}, "neither DEWEY_MCP_URL nor DATABASE_URL is set, so there is nowhere to store"),
        ({"GODOT_HOST": "192.0.2.1", "GODOT_ALLOW_ANONYMOUS": "true"}, "GODOT_HOST: 192.0.2.1 is no address of this"),
        ({"GODOT_HOST": "nowhere.invalid"}, "GODOT_HOST: there is no host nowhere.invalid"),
        ({"GODOT_HOST": "0.0.0.0"}, "listening on 0.0.0.0 would let anyone in"),
        ({"GODOT_TOKENS_FILE": "/nowhere"}, "/nowhere: the file of tokens cannot be read: No such file or directory"),
        ({"DEWEY_MCP_URL": "ws://a b"}, "DEWEY_MCP_URL: the URL must look like"),
        ({"REDIS_URL": "redis+sentinel://host"}, "REDIS_URL: must look like redis+sentinel://"),
    ],
)
def test_settings_with_which_the_daemon_would_not_start_are_told_as_it_would(
    environ: dict[str, str], problem: str
) -> None:
    with workplace() as place:
        shell = Shell(place, "")
        given = {"DATABASE_URL": "postgresql://dewey@127.0.0.1:9/winni", "GODOT_PORT": "0", "REDIS_URL": ""} | environ
        checked = shell.run("config", "check", GODOT_FOO="1", **given)
        first, *told = checked.err.splitlines()
        assert first == "godot config check: warning: GODOT_FOO: no such setting"
        if not problem:
            assert (checked.code, told, checked.out) == (0, [], "the settings are fine\n")
            return
        (told_once,) = told
        assert (checked.code, checked.out) == (2, "")
        started = shell.run("serve", GODOT_DATA_DIR=str(place.data), **given)
        assert started.code == 2
        assert problem in told_once
        assert started.err.splitlines()[-1].removeprefix("godot: ") == told_once.removeprefix("godot config check: ")


def test_help_comes_at_once(shell: Shell) -> None:
    """It imports little more than what every command line of this kind does."""

    def took(*command: str) -> float:
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, timeout=ENOUGH, env=shell.environ())
        return time.monotonic() - began

    assert "Find entries" in shell.run("--help").out
    helps, bares = zip(
        *((took(*shell.command("--help")), took(str(BIN / "python"), "-c", "import click")) for _ in range(5)),
        strict=True,
    )
    assert median(helps) <= 4 * median(bares)
    imported = shell.modules_of("--help")
    assert not {"trio", "psycopg", "redis", "attrs", "hypercorn"} & imported


# On a terminal.


def test_a_terminal_gets_colours_and_columns_and_a_pipe_does_not(shell: Shell) -> None:
    shell.run("log", "ERROR", "red \x1b[2J 日本 " + "x" * 200, "-c", "paint")
    shell.until("query", "-c", "paint")
    terminal = shell.terminal("query", "-c", "paint")
    assert terminal.end() == 0
    (line,) = terminal.text().splitlines()
    assert line.split()[2:4] == ["ERROR", "paint"]
    assert "red \\x1b[2J 日" in line.replace("日 ", "日")
    assert line.endswith("…")
    assert b"\x1b[1;31mERROR\x1b[0m" in terminal.raw
    plain = shell.terminal("query", "-c", "paint", NO_COLOR="1")
    assert plain.end() == 0
    assert b"\x1b" not in plain.raw
    piped = shell.run("query", "-c", "paint")
    assert "\x1b" not in piped.out
    assert "x" * 200 in piped.out
    assert "\x1b[1;31mERROR" in shell.run("query", "-c", "paint", "--color", "always").out


def test_clearing_asks_on_a_terminal_and_takes_no_for_an_answer(shell: Shell) -> None:
    """DEW-009."""
    shell.run("log", "INFO", "keep me", "-c", "kept")
    shell.until("query", "-c", "kept")
    terminal = shell.terminal("clear", "-c", "kept")
    terminal.until("1 entry will be gone for ever. Delete them? [y/N]")
    terminal.type(b"n\n")
    assert terminal.end() == 1
    assert shell.run("clear", "-c", "kept", "--dry-run").out == "1 entry would be deleted\n"
    assert shell.run("query", "-c", "kept").code == 0
    assert shell.run("clear", "-c", "kept", "--yes").out == "1 entry was deleted\n"
    assert shell.run("query", "-c", "kept").code == 1


def test_a_level_is_set_shown_and_forgotten(shell: Shell) -> None:
    """DEW-011."""
    assert shell.run("level").code == 1
    assert shell.run("level", "chatty", "info", "--for", "30m").out.startswith("chatty: INFO until 20")
    listed = shell.run("level")
    assert listed.lines[1].split()[:2] == ["chatty", "INFO"]
    quiet = shell.run("log", "debug", "unheard", "-c", "chatty")
    assert (quiet.code, quiet.out) == (4, "")
    assert "chatty is set to INFO" in quiet.err
    assert shell.run("level", "chatty", "--unset").out == "chatty: everything is stored (it was INFO)\n"
    assert shell.run("log", "debug", "heard", "-c", "chatty").code == 0


def test_a_trace_is_pinned_listed_and_let_go(shell: Shell) -> None:
    """DEW-009."""
    trace = "0af76519-16cd-43dd-8448-eb211c80319c"
    shell.run("log", "INFO", "precious", "-c", "pins", "-t", trace)
    shell.until("query", "-c", "pins")
    assert (shell.run("pin").code, shell.run("pin").out) == (1, "")
    pinned = shell.run("pin", trace, "--note", "the outage", "--for", "30d")
    assert pinned.code == 0
    assert "the outage" in pinned.lines[1]
    assert shell.run("clear", "-c", "pins", "--yes").code == 1
    assert shell.run("query", "-c", "pins").code == 0
    let_go = shell.run("pin", trace, "--remove")
    assert (let_go.code, let_go.err) == (0, f"godot pin: {trace} is no longer pinned\n")
    again = shell.run("pin", trace, "--remove")
    assert (again.code, again.err) == (1, f"godot pin: {trace} was not pinned\n")
    assert shell.run("clear", "-c", "pins", "--yes").code == 0


def test_statistics_are_watched_until_ctrl_c(shell: Shell) -> None:
    terminal = shell.terminal("stats", "--watch")
    terminal.until("a second)")
    terminal.type(b"\x03")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text()


# Following.


def test_what_comes_is_followed_and_ctrl_c_ends_it(shell: Shell) -> None:
    shell.run("log", "INFO", "before", "-c", "followed")
    shell.until("query", "-c", "followed")
    terminal = shell.terminal("tail", "-f", "-c", "follow*")
    terminal.until("before")
    for number in range(5):
        logging = subprocess.Popen(
            shell.command("log", "INFO", f"comes {number}", "-c", "followed"),
            env=shell.environ(),
            stdout=subprocess.DEVNULL,
        )
        terminal.until(f"comes {number}")
        logging.wait(timeout=ENOUGH)
    terminal.type(b"\x03")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text()


def test_a_closed_pipe_ends_it_silently(shell: Shell) -> None:
    shell.run("log", "INFO", "to be read", "-c", "piped")
    shell.until("query", "-c", "piped")
    for arguments in (("tail", "-f", "-c", "piped", "-o", "raw"), ("export",)):
        following = shell.start(*arguments)
        assert following.stdout is not None
        assert following.stderr is not None
        following.stdout.readline()
        following.stdout.close()
        assert following.wait(timeout=ENOUGH) == 0
        assert following.stderr.read() == b""
        following.stderr.close()


def test_following_survives_a_restart_of_the_daemon_without_a_gap() -> None:
    """REL-004: nothing is missing and nothing comes twice; when it stays away, the code is 3."""
    with workplace() as place:
        port = 0

        def start() -> Shell:
            nonlocal port
            program = place.start("godot", "up", "--data-dir", place.data, "--port", port)
            url = trio.run(program.ready)
            port = int(url.rpartition(":")[2])
            return Shell(place, url)

        shell = start()
        following = shell.start("tail", "-f", "-o", "raw", "-n", "1000")
        assert following.stdout is not None
        expected = []

        def log(text: str) -> None:
            expected.append(text)
            assert shell.run("log", "INFO", text).code == 0
            assert following.stdout is not None
            assert following.stdout.readline().decode().strip() == text

        log("one")
        (daemon,) = [each for each in place._programs if not each.ended]
        trio.run(daemon.kill)
        shell = start()
        log("two")
        log("three")
        following.send_signal(signal.SIGINT)
        rest, err = following.communicate(timeout=ENOUGH)
        assert (following.returncode, rest) == (0, b"")
        assert b"waiting for it" in err
        assert b"nothing is missing" in err
