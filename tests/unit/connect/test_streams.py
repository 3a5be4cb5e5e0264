"""The command `godot connect`: the three streams that a host has started it with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import trio

from godot.connect import HostGone
from godot.connect import streams as streams_module


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Make pipes that are closed afterwards."""
    opened: list[int] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    yield make
    for end in opened:
        try:
            os.close(end)
        except OSError:
            assert end in opened  # the test has closed it


@pytest.mark.parametrize("blocking", [True, False])
async def test_streams_work_whether_somebody_made_them_non_blocking_or_not(
    pipes: Callable[[], tuple[int, int]], blocking: bool
) -> None:
    (stdin, host_says), (host_hears, stdout) = pipes(), pipes()
    for end in (stdin, stdout):
        os.set_blocking(end, blocking)
    ours = streams_module.Streams(stdin, stdout, stdout)
    line = "é" * 200_000
    received: list[bytes] = []

    async def listen() -> None:
        while sum(map(len, received)) < len(line.encode()) + 1:
            received.append(await trio.to_thread.run_sync(os.read, host_hears, 65536))

    async def read() -> None:
        received_in.append(await ours.read())

    received_in: list[bytes] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.write, line)
            nursery.start_soon(read)
            await trio.sleep(0.05)  # both are waiting by now, as a rule
            os.write(host_says, b"hello")
            nursery.start_soon(listen)
    assert b"".join(received) == f"{line}\n".encode()
    assert received_in == [b"hello"]
    assert [os.get_blocking(stdin), os.get_blocking(stdout)] == [blocking, blocking]


async def test_the_end_of_a_stream_is_no_error(pipes: Callable[[], tuple[int, int]]) -> None:
    (stdin, host_says), (host_hears, stdout) = pipes(), pipes()
    os.close(host_says)
    os.close(host_hears)
    ours = streams_module.Streams(stdin, stdout, stdout)
    with trio.fail_after(10):
        assert await ours.read() == b""
        with pytest.raises(HostGone):
            await ours.write("nobody reads this")
        await ours.tell("nor this")
        assert await streams_module.Streams(-1, -1, -1).read() == b""


async def test_a_full_disk_under_stdout_is_told(pipes: Callable[[], tuple[int, int]]) -> None:
    host_hears, stderr = pipes()
    full = os.open("/dev/full", os.O_WRONLY)
    with trio.fail_after(10), pytest.raises(HostGone):
        await streams_module.Streams(-1, full, stderr).write("lost")
    os.close(full)
    assert os.read(host_hears, 1000) == b"godot connect: stdout cannot be written (No space left on device)\n"


async def test_a_host_that_does_not_read_holds_nobody_up_who_wants_to_stop(
    pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "TELL_S", 0.01)
    host_hears, stdout = pipes()
    ours = streams_module.Streams(-1, stdout, stdout)
    with trio.fail_after(10):
        with trio.move_on_after(0.01):
            await ours.write("x" * 1_000_000)
        await ours.tell("x")
    while len(os.read(host_hears, 65536)) == 65536:  # let the abandoned thread come to its end
        pass
