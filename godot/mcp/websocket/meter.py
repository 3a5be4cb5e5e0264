"""The TCP stream below a WebSocket, which is read no further than there is room for its messages.

It stands below trio-websocket, because that assembles a message in memory before it hands the message over: too late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from godot.mcp.budget import Account, Claim
from godot.mcp.websocket.connection import READ_BYTES
from godot.mcp.websocket.frames import Begin, End, FrameScanner, Part, ends_request

SLOWEST_BYTES_PER_S: Final = 64 * 1024
"""A message may take the time of any peer, and beside that its size at this speed; then it is given up."""

FRAMES_AT_ONCE: Final = 50
"""Frames handed over together. trio-websocket handles empty frames without a pause, and 64 KiB hold eleven thousand."""

PART_BYTES: Final = 64
"""Memory that the assembly of a message takes for each part that came by itself, however small."""

REQUEST_MAX_BYTES: Final = 16 * 1024
"""Of an upgrade request; h11, which parses it, refuses more."""


class Meter(trio.abc.Stream):
    """The stream of one connection.

    :param account: received bytes are claimed from it.
    :param largest: bytes that a message may have.
    :param setting: name of the setting for that; the refusal of a larger message contains it.
    :param timeout_s: time of any peer for a message, beside the time for the message's size.
    :param give_up: called with a close code and the reason when the peer is to be dropped; nothing is read after that.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        account: Account,
        *,
        largest: int,
        setting: str,
        timeout_s: float,
        give_up: Callable[[int, str], None],
    ) -> None:
        self._stream = stream
        self._account = account
        self._largest = largest
        self._setting = setting
        self._timeout_s = timeout_s
        self._give_up = give_up
        self._scanner = FrameScanner()
        self._ahead = b""
        """Bytes that are read and not handed over yet, because there was no room."""
        self._due: Begin | None = None
        self._claim: Claim | None = None
        self._deadline = 0.0
        self._size = 0
        self._parts = 0
        self._whole: deque[Claim] = deque()
        self._busy = 0

    @property
    def waits_for_peer(self) -> bool:
        """Whether we wait for the peer to send bytes, or to take some.

        If not, nothing is read for lack of room, and a missing pong is not the peer's fault.
        """
        return self._busy > 0

    def claim(self) -> Claim:
        """Return the claim of the next message, in the order in which they came; the caller releases it."""
        return self._whole.popleft()

    def release(self) -> None:
        """Give back the claims of messages that were not taken: the connection is over."""
        for claim in (*self._whole, *([] if self._claim is None else [self._claim])):
            claim.release()
        self._whole.clear()
        self._claim = None

    async def read_request(self) -> bytes:
        """Return the first bytes of the peer: all of its upgrade request, or less if no more comes."""
        before = -1
        while before < len(self._ahead) < REQUEST_MAX_BYTES and not ends_request(self._ahead, before):
            before = len(self._ahead)
            self._ahead += await self._read()
        return self._ahead

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received bytes, up to the point where there is no room for more."""
        del max_bytes  # trio-websocket asks for READ_BYTES
        if self._due is not None:
            due = self._due
            self._open(await self._account.claim(self._room_for(due)), due)
            self._due = None
        if self._ahead:
            await trio.lowlevel.checkpoint()
        data, self._ahead = self._ahead or await self._read(), b""
        end = frames = 0
        while self._due is None:
            end, event = self._scanner.scan(data, end)
            match event:
                case Begin(size, is_whole) if size > self._largest:
                    return await self._refuse_size(f"{size:,}" if is_whole else f"{size:,} or more")
                case Begin():
                    claim = self._account.claim_nowait(self._room_for(event))
                    if claim is None:
                        self._due = event
                    else:
                        self._open(claim, event)
                case Part(size):
                    self._size += size
                    self._parts += 1
                    if self._size > self._largest:
                        return await self._refuse_size(f"{self._size:,} or more")
                case End():
                    self._close()
                case None:
                    break
            frames += 1
            if frames >= FRAMES_AT_ONCE and not self._scanner.is_ending:
                break
        self._ahead = data[end:]
        if self._scanner.is_open:
            self._parts += 1
            if self._size + self._parts * PART_BYTES > 2 * self._largest + READ_BYTES:
                return await self._drop(1009, f"a message came in {self._parts:,} parts; send it in larger ones")
        return data[:end]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Pass bytes on."""
        with self._waiting_for_peer():
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Pass the question on."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    @contextmanager
    def _waiting_for_peer(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def _read(self) -> bytes:
        with self._waiting_for_peer():
            if not self._scanner.is_open:
                return bytes(await self._stream.receive_some(READ_BYTES))
            with self._account.pool.patience(self._deadline) as patience:
                data = bytes(await self._stream.receive_some(READ_BYTES))
        self._deadline = patience.deadline
        if patience.cancelled_caught:
            return await self._drop(1008, "a message was begun and not finished in time")
        return data

    def _room_for(self, begun: Begin) -> int:
        # The first of several frames does not tell how long the message will be.
        return begun.size if begun.is_whole else self._largest

    def _open(self, claim: Claim, begun: Begin) -> None:
        self._claim = claim
        self._size, self._parts = begun.size, 0
        self._deadline = trio.current_time() + self._timeout_s + claim.size / SLOWEST_BYTES_PER_S

    def _close(self) -> None:
        if self._claim is not None:
            self._claim.shrink(min(self._size, self._claim.size))
            self._whole.append(self._claim)
            self._claim = None

    async def _refuse_size(self, size: str) -> bytes:
        return await self._drop(
            1009, f"a message of {size} bytes; {self._setting} allows {self._largest:,}: send it in parts"
        )

    async def _drop(self, code: int, reason: str) -> bytes:
        """Give the connection up, and discard what comes until it is closed.

        With bytes unread, closing would reset the connection, and the peer would not get the goodbye.
        """
        self._give_up(code, reason)
        while await self._stream.receive_some(READ_BYTES):
            pass
        return b""
