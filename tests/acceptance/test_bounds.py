"""What the programs hold, whatever connects to them: memory, connections, descriptors (LIM-001)."""

from __future__ import annotations

import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import pytest
import trio

from godot.service.descriptors import raise_limit
from tests.programs import (
    ENOUGH,
    CallFault,
    Peer,
    Program,
    Socket,
    Workplace,
    connect,
    dial,
    frame,
    until,
    workplace,
)

MB: Final = 2**20
LARGE: Final = 15 * MB
IN_FLIGHT: Final = 64 * MB
"""What the daemons of this module may have in flight, in each direction."""

FACTOR: Final = 8
"""What Python takes for a byte in flight, generously: a frame is there as text, as bytes and as objects."""

PEER_TIMEOUT_S: Final = 5.0
"""Shorter, and on a busy machine the one who has to be answered is taken for one who does not read."""

IDLE: Final = 1_005


@pytest.fixture
def place() -> Iterator[Workplace]:
    raise_limit()  # this process is the other end of all these connections
    with workplace() as place:
        yield place


@asynccontextmanager
async def answered_throughout(url: str, program: Program) -> AsyncIterator[list[int]]:
    """Log durably all the time on one connection; yield the memory that the daemon took each time."""
    seen: list[int] = []

    async def log(peer: Peer) -> None:
        while True:
            try:
                with trio.fail_after(20):
                    assert (await peer.log("still here", component="observer", ack="durable"))["status"] == "durable"
                seen.append(program.resident_bytes)
            except CallFault:
                pass  # on a busy machine it may not be on disk within a second, and that is the answer then
            await trio.sleep(0.02)

    async with connect(url) as peer, trio.open_nursery() as nursery:
        await peer.log("first", component="observer", ack="durable")
        nursery.start_soon(log, peer)
        yield seen
        count = len(seen)
        await until(lambda: len(seen) > count + 2)
        nursery.cancel_scope.cancel()


async def answers_to(url: str) -> bytes:
    """Open a connection to a port, say nothing, and return what is said."""
    async with dial(url) as peer:
        with trio.move_on_after(2):
            return await peer.rest()
    return b""


async def test_1_005_idle_connections_at_1_024_descriptors_keep_nobody_from_logging(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up()
        resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, (256, 1_024))
        url = await program.ready()
        async with AsyncExitStack() as idle:
            refused = 0
            async with answered_throughout(url, program) as seen:
                for _ in range(IDLE):
                    peer = await idle.enter_async_context(dial(url))
                    try:
                        await peer.upgrade()
                    except (AssertionError, trio.BrokenResourceError):
                        refused += 1
                while not (said := await answers_to(url)):
                    pass  # so many are refused at once that some are closed without a word
                await until(lambda: len(seen) > 10)
            assert refused > 200
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"connections are in use; see GODOT_MAX_CONNECTIONS" in said
            assert (await answers_to(program.http)) == b"", "health is asked on connections of its own"
            assert "GODOT_MAX_CONNECTIONS" in (await program.event("refused"))["reason"]
        await until(lambda: program.descriptors < 100)
        async with connect(url) as client:
            await client.log("afterwards", ack="durable")
            assert (await client.found(component="gates"))["message"] == "afterwards"
        assert not program.events("bug", "restart")


async def test_who_says_nothing_makes_room_for_who_does(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_MAX_CONNECTIONS=20)
        url = await program.ready()
        async with AsyncExitStack() as idle:
            for _ in range(100):
                await idle.enter_async_context(dial(url))
                await idle.enter_async_context(dial(program.http))
            async with connect(url) as peer:
                assert (await peer.log("between them", ack="durable"))["status"] == "durable"
            async with dial(program.http) as health:
                await health.stream.send_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert (await health.rest()).startswith(b"HTTP/1.1 200 ")


async def test_more_connections_than_descriptors_allow_are_the_operators_problem(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_MAX_CONNECTIONS=2_000_000)
        assert await program.exit() == 2
        assert "raise the limit (ulimit -n) or lower the setting" in program.err[-1]


async def half_sent(peer: Socket) -> None:
    await peer.stream.send_all(Socket.head(LARGE) + b" " * (LARGE - 1))


async def half_sent_in_parts(peer: Socket) -> None:
    while True:
        await peer.send(b" " * MB, 0 if peer is None else 1, final=False)
        await peer.stream.send_all(Socket.head(LARGE, 0, final=False) + b" " * LARGE)


async def queries_behind_tails(peer: Socket) -> None:
    for _ in range(4):
        await peer.send(frame("logger_tail", component="nobody", wait_s=20).encode())
    while True:
        await peer.send(frame("logger_query", search="x" * LARGE).encode())


async def answers_left_unread(peer: Socket) -> None:
    while True:
        await peer.send(frame("logger_query", component="large", max_bytes=900_000).encode())


async def empty_parts(peer: Socket) -> None:
    await peer.send(b"{", final=False)
    while True:
        await peer.stream.send_all(Socket.head(0, 0, final=False) * 10_000)


async def pings(peer: Socket) -> None:
    while True:
        await peer.stream.send_all(Socket.head(0, 9) * 10_000)


async def empty_messages(peer: Socket) -> None:
    while True:
        await peer.stream.send_all(Socket.head(0) * 10_000)


async def compressed(peer: Socket) -> None:
    while True:
        head = Socket.head(MB)
        await peer.stream.send_all(bytes([head[0] | 0x40]) + head[1:] + b"\0" * MB)


@pytest.mark.parametrize(
    ("attack", "connections"),
    [
        (half_sent, 60),
        (half_sent_in_parts, 60),
        (queries_behind_tails, 12),
        (answers_left_unread, 60),
        (empty_parts, 4),
        (pings, 4),
        (empty_messages, 4),
        (compressed, 4),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_no_client_takes_more_memory_than_is_for_all_and_another_one_is_answered(
    place: Workplace, attack: object, connections: int
) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_MAX_BYTES_IN_FLIGHT=IN_FLIGHT, GODOT_PEER_TIMEOUT_S=PEER_TIMEOUT_S)
        url = await program.ready()
        async with connect(url) as peer:
            await peer.log_batch(["x" * 9_000] * 100, component="large")
            await peer.status_with(stored=100)
        before = program.resident_bytes

        async def be_hostile() -> None:
            while True:
                async with dial(url) as peer:
                    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    await peer.upgrade()
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await attack(peer)  # type: ignore[operator]
                    await peer.rest()

        async with answered_throughout(url, program) as seen, trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(be_hostile)
            await until(lambda: len(seen) >= 60)
            await trio.sleep(2 * PEER_TIMEOUT_S)  # those who are to be dropped have been, and have come back
            nursery.cancel_scope.cancel()
        assert max(seen) - before < FACTOR * IN_FLIGHT
        assert not program.events("bug")


async def test_bodies_of_many_http_requests_are_bounded_together(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_MAX_BYTES_IN_FLIGHT=IN_FLIGHT)
        url = await program.ready()
        before = program.resident_bytes
        answers: list[bytes] = []

        async def post_all_but_one_byte() -> None:
            async with dial(program.http) as peer:
                with suppress(trio.BrokenResourceError):
                    await peer.stream.send_all(
                        b"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % LARGE
                        + b" " * (LARGE - 1)
                    )
                answers.append(await peer.rest())

        async with answered_throughout(url, program) as seen, trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(post_all_but_one_byte)
            await until(lambda: len(answers) >= 36)
            nursery.cancel_scope.cancel()
        assert b"see GODOT_MAX_BYTES_IN_FLIGHT" in b"".join(answers)
        assert any(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
        assert max(seen) - before < FACTOR * IN_FLIGHT


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n", b"200"),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
        ),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"403"),
        (b"GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"403"),
        (b"GET /livez HTTP/1.1\r\nHost: 10.1.2.3:9061\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nOrigin: http://localhost\r\n"
            b"Connection: close\r\n\r\n",
            b"403",
        ),
    ],
    ids=["h2", "h2c", "two lengths", "foreign host", "foreign host, ready", "address", "no host", "two origins"],
)
async def test_the_http_port_takes_one_kind_of_request_only(shared: Program, request_: bytes, status: bytes) -> None:
    with trio.fail_after(ENOUGH):
        async with dial(shared.http) as peer:
            await peer.stream.send_all(request_)
            assert (await peer.rest()).split()[1] == status


async def test_a_client_that_goes_in_the_middle_of_its_request_is_no_bug(shared: Program) -> None:
    with trio.fail_after(ENOUGH):
        for _ in range(3):
            async with dial(shared.http) as peer:
                await peer.stream.send_all(
                    b"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
                )
        async with dial(shared.http) as peer:
            await peer.stream.send_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await peer.rest()).startswith(b"HTTP/1.1 200 ")
        assert not shared.events("bug")


async def test_a_peer_that_does_not_read_its_answer_does_not_hold_up_the_stop(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_DRAIN_S=1)
        await program.ready()
        address = urlsplit(program.http)
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect((str(address.hostname), address.port))
            silent.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    silent.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000)
            assert await program.stop() == 0


@pytest.fixture(scope="module")
def shared() -> Iterator[Program]:
    with workplace() as place:
        program = place.up()
        trio.run(program.ready)
        yield program
