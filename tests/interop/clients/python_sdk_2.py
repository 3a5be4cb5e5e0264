"""The official Python client 2.x, which has no WebSocket transport: its public `Transport` over one, below.

python python_sdk_2.py URL legacy|auto|2026-07-28|2026-07-28+discovered
"""

import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from mcp import Client, MCPDeprecationWarning, MCPError
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

DEADLINE_S = 30.0


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[tuple[object, object]]:
    """A transport of the client's, one message a text frame."""
    to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with to_client:
            async for frame in socket:
                try:
                    message = SessionMessage(jsonrpc_message_adapter.validate_json(frame))
                except ValueError as exc:
                    await to_client.send(exc)
                else:
                    await to_client.send(message)

    async def write() -> None:
        async with from_client:
            async for each in from_client:
                await socket.send(each.message.model_dump_json(by_alias=True, exclude_none=True))

    async with connect(url, subprotocols=[Subprotocol("mcp")]) as socket, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        yield incoming, outgoing
        tasks.cancel_scope.cancel()


async def converse(url: str, mode: str) -> dict[str, object]:
    """Hold the conversation that all the clients hold, and return what came of it."""
    transport: Transport = websocket(url)
    known = None
    if mode == "2026-07-28+discovered":
        async with Client(websocket(url), mode="auto") as scout:
            known = scout.session.discover_result
        mode = "2026-07-28"
    async with Client(transport, mode=mode, prior_discover=known, read_timeout_seconds=DEADLINE_S) as client:
        listed = await client.list_tools()
        if mode == "legacy":
            await client.send_ping()

        async def call(name: str, **arguments: object) -> dict[str, object]:
            result = await client.call_tool(name, arguments)
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        report: dict[str, object] = {
            "protocol": client.protocol_version,
            "server": client.server_info and client.server_info.model_dump(exclude_none=True),
            "capabilities": client.server_capabilities.model_dump(exclude_none=True),
            "instructions": client.instructions,
            "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools],
            "log": await call("logger_log", component="python-sdk-2", level="INFO", message="hello"),
            "query": await call("logger_query", component="python-sdk-2", limit=1),
            "status": await call("logger_status"),
            "bad_arguments": await call("logger_log", component=7, level="LOUD"),
        }
        try:
            await call("logger_lag")
        except MCPError as refused:
            report["unknown_tool"] = {"code": refused.error.code, "message": refused.error.message}
    return report


async def main() -> None:
    """Print the report."""
    _, url, mode = sys.argv
    json.dump(await asyncio.wait_for(converse(url, mode), DEADLINE_S), sys.stdout)


warnings.simplefilter("ignore", MCPDeprecationWarning)  # ping
asyncio.run(main())
