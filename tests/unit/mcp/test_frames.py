"""Where messages begin and end: the same, however the network cuts what a client sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage

from godot.mcp.websocket.frames import Begin, Control, End, Event, FrameScanner, Part

UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

MESSAGES = st.lists(
    st.lists(st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536]), min_size=1, max_size=4), max_size=4
)


def sent(messages: list[list[int]], *, pings: bool) -> bytes:
    """Return what a client sends: an upgrade request, and each message in parts of these sizes."""
    client = Connection(ConnectionType.CLIENT)
    stream = UPGRADE
    for sizes in messages:
        for number, size in enumerate(sizes, 1):
            stream += client.send(TextMessage("x" * size, message_finished=number == len(sizes)))
            if pings:
                stream += client.send(Ping(b"are you there"))
    return stream


def scanned(chunks: list[bytes]) -> list[Event]:
    scanner = FrameScanner()
    found: list[Event] = []
    for chunk in chunks:
        end, event = 0, None
        while True:
            end, event = scanner.scan(chunk, end)
            if event is None:
                break
            if not isinstance(event, Control):
                found.append(event)
        assert end == len(chunk)
    return found


def cut(stream: bytes, lengths: list[int]) -> list[bytes]:
    chunks, start = [], 0
    for length in lengths:
        chunks.append(stream[start : start + length])
        start += length
    return [*chunks, stream[start:]]


@given(MESSAGES, st.booleans(), st.lists(st.integers(1, 80_000), max_size=40))
def test_every_message_is_seen_however_it_is_cut(messages: list[list[int]], pings: bool, lengths: list[int]) -> None:
    expected: list[Event] = []
    for first, *others in messages:
        expected += [Begin(first, not others), *map(Part, others), End()]
    assert scanned(cut(sent(messages, pings=pings), lengths)) == expected


@given(MESSAGES)
def test_every_message_is_seen_byte_by_byte(messages: list[list[int]]) -> None:
    small = [[min(size, 300) for size in sizes] for sizes in messages]
    stream = sent(small, pings=True)
    assert scanned([stream[at : at + 1] for at in range(len(stream))]) == scanned([stream])


@given(st.binary(max_size=300), st.lists(st.integers(1, 10), max_size=40))
def test_noise_raises_nothing(noise: bytes, lengths: list[int]) -> None:
    scanned(cut(UPGRADE + noise, lengths))
