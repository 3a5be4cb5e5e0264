"""Runs in a third container: logs durable entries over MCP until it is told to stop, and prints what was acknowledged.

An entry that was not acknowledged is sent again, with its id. Lines: `<message>` for each acknowledged entry.
"""

from __future__ import annotations

import json
import signal
import sys
import uuid

import trio

from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.websocket.dial import Address, over_websocket

CLIENTS = 4
BATCH = 20


async def main(url: str, name: str) -> None:
    stop = trio.Event()

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as loggers:
            for number in range(CLIENTS):
                loggers.start_soon(log, url, name, number, stop)
        nursery.cancel_scope.cancel()


async def log(url: str, name: str, client_number: int, stop: trio.Event) -> None:
    """Log batch after batch on one connection."""
    async with trio.open_nursery() as nursery:
        client = Client(over_websocket(Address.parse(url), None, max_message_bytes=1 << 20), name=name, version="0")
        await nursery.start(client.run)
        number = 0
        while not stop.is_set():
            logs = [
                {
                    "id": str(uuid.uuid4()),
                    "component": name,
                    "level": "INFO",
                    "message": f"{name} {client_number} {number + each}",
                }
                for each in range(BATCH)
            ]
            number += BATCH
            while not await is_on_disk(client, logs):  # noqa: ASYNC110 - the daemon is elsewhere
                await trio.sleep(0.1)
            sys.stdout.write("".join(f"{entry['message']}\n" for entry in logs))
            sys.stdout.flush()
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def is_on_disk(client: Client, logs: list[dict[str, str]]) -> bool:
    """Send entries; whether all of them were acknowledged."""
    with trio.move_on_after(5):
        try:
            answer = await client.call("logger_log_batch", json.dumps({"logs": logs, "ack": "durable"}).encode())
        except (CallFailed, CallRefused):
            return False
        return not answer.is_error and json.loads(answer.json)["accepted"] == len(logs)
    client.disconnect()
    return False


trio.run(main, sys.argv[1], sys.argv[2])
