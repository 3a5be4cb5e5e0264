"""A WebSocket server that sends every frame back: what the transport can do at the most."""

from __future__ import annotations

import sys
from contextlib import suppress

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, WebSocketServer, serve_websocket


async def echo(request: WebSocketRequest) -> None:
    connection = await request.accept()
    with suppress(ConnectionClosed):
        while True:
            await connection.send_message(await connection.get_message())


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(
            lambda task_status: serve_websocket(echo, "127.0.0.1", 0, None, task_status=task_status)
        )
        sys.stdout.write(f"ws://127.0.0.1:{server.port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
