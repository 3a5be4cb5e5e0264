"""SIGTERM, SIGINT and SIGHUP: the first is passed on, the second ends the daemon, and none kills it by default."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from godot.service.signals import Lifecycle, run_with_signals


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def run_bounded(main: object) -> int:
    with trio.fail_after(5):
        return await run_with_signals(main)  # type: ignore[arg-type]


async def test_the_code_of_a_daemon_that_ends_by_itself_is_returned() -> None:
    async def main(_: Lifecycle) -> int:
        return 3

    assert await run_bounded(main) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_tells_the_daemon_to_stop_and_lets_it_finish(number: signal.Signals) -> None:
    """REL-005: what main returns after its drain is the exit code."""
    finished = False

    async def main(life: Lifecycle) -> int:
        nonlocal finished
        life.ready.set()
        signal.raise_signal(number)
        await life.stop.wait()
        await trio.testing.wait_all_tasks_blocked()  # the drain
        finished = True
        return 0

    assert await run_bounded(main) == 0
    assert finished


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_the_second_signal_ends_the_drain_at_once(number: signal.Signals, code: int) -> None:
    """REL-005: a second signal exits at once."""
    cleaned_up = False

    async def main(life: Lifecycle) -> int:
        nonlocal cleaned_up
        life.ready.set()
        signal.raise_signal(signal.SIGTERM)
        await life.stop.wait()
        signal.raise_signal(number)
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up = True

    assert await run_bounded(main) == code
    assert cleaned_up


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_terminal_that_closes_does_not_cut_a_drain_short(first: signal.Signals) -> None:
    """REL-005: the shell sends SIGHUP and then the kernel does; so may a Ctrl-C before."""

    async def main(life: Lifecycle) -> int:
        life.ready.set()
        signal.raise_signal(first)
        await life.stop.wait()
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
        return 0

    assert await run_bounded(main) == 0


async def test_sighup_that_was_ignored_at_the_start_stays_ignored() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def main(life: Lifecycle) -> int:
        life.ready.set()
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        assert not life.stop.is_set()
        return 0

    assert await run_bounded(main) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


async def test_a_signal_before_the_daemon_is_ready_ends_it_at_once() -> None:
    async def main(_: Lifecycle) -> int:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()

    assert await run_bounded(main) == 143


PENDING_AT_THE_END = """
import signal, trio
from godot.service.signals import run_with_signals

async def main(life):
    life.ready.set()
    signal.raise_signal(signal.SIGTERM)
    await life.stop.wait()
    signal.raise_signal(signal.SIGTERM)  # nobody looks at it any more
    return 0

code = trio.run(run_with_signals, main)
print("last line", flush=True)
raise SystemExit(code)
"""


def test_a_signal_that_arrives_while_the_daemon_returns_does_not_kill_it() -> None:
    ended = subprocess.run([sys.executable, "-c", PENDING_AT_THE_END], capture_output=True, text=True, timeout=10)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "last line\n", "")
