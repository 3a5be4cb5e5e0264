"""The official Python client 1.x: its own WebSocket transport.

python python_sdk_1.py URL legacy
"""

import asyncio
import json
import sys
import warnings
from datetime import timedelta

from mcp import ClientSession, McpError
from mcp.client.websocket import websocket_client

DEADLINE_S = 30.0


async def converse(url: str) -> dict[str, object]:
    """Hold the conversation that all the clients hold, and return what came of it."""
    patience = timedelta(seconds=DEADLINE_S)
    async with websocket_client(url) as streams, ClientSession(*streams, read_timeout_seconds=patience) as client:
        agreed = await client.initialize()
        listed = await client.list_tools()
        await client.send_ping()

        async def call(name: str, **arguments: object) -> dict[str, object]:
            result = await client.call_tool(name, arguments)
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        report: dict[str, object] = {
            "protocol": agreed.protocolVersion,
            "server": agreed.serverInfo.model_dump(exclude_none=True),
            "capabilities": agreed.capabilities.model_dump(exclude_none=True),
            "instructions": agreed.instructions,
            "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools],
            "log": await call("logger_log", component="python-sdk-1", level="INFO", message="hello"),
            "query": await call("logger_query", component="python-sdk-1", limit=1),
            "status": await call("logger_status"),
            "bad_arguments": await call("logger_log", component=7, level="LOUD"),
        }
        try:
            await call("logger_lag")
        except McpError as refused:
            report["unknown_tool"] = {"code": refused.error.code, "message": refused.error.message}
    return report


async def main() -> None:
    """Print the report."""
    _, url, mode = sys.argv
    if mode != "legacy":
        raise SystemExit(f"the Python client 1.x has no mode {mode!r}")
    json.dump(await asyncio.wait_for(converse(url), DEADLINE_S), sys.stdout)


warnings.simplefilter("ignore", DeprecationWarning)  # websocket_client says that 2.0 will not have it
asyncio.run(main())
