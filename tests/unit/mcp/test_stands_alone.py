"""godot/mcp and godot/json are a library of their own: lifted into an empty directory, they serve a tool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import godot

PROGRAM = """
import sys
from functools import partial
from typing import Any

sys.path.insert(0, sys.argv[1])

import attrs
import trio

from godot.json.structure import argument
from godot.json.text import dumps, loads
from godot.mcp.client import Client
from godot.mcp.errors import ToolError
from godot.mcp.memory import in_process
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Tool, Toolbox
from godot.mcp.websocket.dial import Address, over_websocket
from godot.mcp.websocket.listen import serve_websocket


@attrs.frozen
class Arguments:
    text: str = argument("What to say.")


async def echo(arguments: Arguments) -> Answer:
    if not arguments.text:
        raise ToolError("text: must not be empty")
    return Answer.of({"text": arguments.text})


async def main() -> None:
    tool = Tool(name="echo", title="Echo", description="Say it again.", arguments=Arguments, run=echo)
    server = Server(ServerInfo("echo", "1", "Says it again."), Toolbox([tool]), report=lambda *_: None)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(partial(serve_websocket, server, listeners))
            port = listeners[0].socket.getsockname()[1]
            address = Address.parse(f"ws://127.0.0.1:{port}")
            for connect in (over_websocket(address, max_message_bytes=1024 * 1024), in_process(partial(serve, server))):
                client = Client(connect, name="test", version="1")
                await nursery.start(client.run)
                for text in ("again", ""):
                    answer = await client.call("echo", dumps({"text": text}))
                    print(answer.is_error, answer.json)
            nursery.cancel_scope.cancel()


trio.run(main)
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("godot", "dewey_logs")]
print(sorted({module.__name__ for module in ours if not str(module.__file__).startswith(sys.argv[1])}))
print(sorted({module.__name__.split(".")[1] for module in ours if "." in module.__name__}))
"""


@pytest.mark.parametrize("isolated", ["-I", "-IO"])
def test_mcp_and_json_serve_a_tool_where_nothing_else_of_ours_is(tmp_path: Path, isolated: str) -> None:
    package = Path(godot.__file__).parent
    for room in ("mcp", "json"):
        shutil.copytree(package / room, tmp_path / "godot" / room)
    (tmp_path / "godot" / "__init__.py").touch()
    ended = subprocess.run(
        [sys.executable, isolated, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
    said = ['False {"text":"again"}', "True text: must not be empty"] * 2
    assert ended.stdout.splitlines() == [*said, "[]", "['json', 'mcp']"]
