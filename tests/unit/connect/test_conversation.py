"""What the pipe of `godot connect` remembers; the rest of it shows in the tests of the pipe."""

from __future__ import annotations

import json

import pytest

from godot.connect.conversation import MAX_IN_FLIGHT, Conversation
from tests.unit.connect.ends import NOTICE, URL, call, result


def test_what_is_never_answered_is_forgotten_in_the_end() -> None:
    conversation = Conversation(URL)
    assert conversation.greet() is None
    for number in range(MAX_IN_FLIGHT + 5):
        conversation.take(call(number), 0)
        assert conversation.next_line() == call(number)
    answers = [json.loads(answer)["id"] for answer in conversation.lost(0, "gone")]
    assert answers == list(range(5, MAX_IN_FLIGHT + 5))
    assert not conversation.busy


@pytest.mark.parametrize(
    "message", ["no JSON", "7", "[]", "[1]", '{"id":1}', '{"jsonrpc":"2.0","id":null,"method":"x"}']
)
def test_what_is_no_message_is_owed_an_error_without_an_id(message: str) -> None:
    conversation = Conversation(URL)
    conversation.take(message, 0)
    assert conversation.greet() is None
    assert conversation.next_line() == message
    assert conversation.busy
    assert conversation.receive('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}')
    assert not conversation.busy


@pytest.mark.parametrize("message", [NOTICE, f"[{NOTICE}]", result(1), '{"jsonrpc":"2.0","id":1,"error":{}}'])
def test_nothing_is_owed_for_what_asks_nothing(message: str) -> None:
    conversation = Conversation(URL)
    conversation.take(message, 0)
    assert not conversation.busy
