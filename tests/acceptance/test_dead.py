"""`godot dead`, as an operator types it, on entries that others have put into the queue (GOD-001)."""

from __future__ import annotations

import json
from contextlib import closing

import trio

from tests.programs import ENOUGH, Queue, Workplace, connect

LOUD = {"component": "gates", "level": "LOUD", "message": "hello"}
GARBAGE = b"this is no JSON"


async def test_what_cannot_be_stored_is_listed_tried_again_and_purged(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        url = await place.up().ready()
        with closing(Queue.at(place.endpoints()["redis"])) as queue:
            queue.push(LOUD, GARBAGE, {**LOUD, "level": "INFO"})
            async with connect(url) as peer:
                await peer.status_with(received=3, stored=1, dead=2)

                listed = place.start("godot", "dead", "list", "--url", url, "-o", "json")
                assert await listed.exit() == 0
                entries = [json.loads(line) for line in listed.out]
                assert [entry["entry"] for entry in entries] == [json.dumps(LOUD), GARBAGE.decode()]
                assert "must be one of ERROR, WARN" in entries[0]["reason"]

                retried = place.start("godot", "dead", "retry", entries[0]["id"], "--url", url)
                assert (await retried.exit(), retried.out) == (0, ["retried=1 kept=1"])
                # It still says LOUD, and is put aside again; the sum holds all the while.
                await peer.status_with(received=3, stored=1, dead=2)

                unsure = place.start("godot", "dead", "purge", "--all", "--url", url)
                assert await unsure.exit() == 2
                assert len(queue.dead()) == 2
                for action, more in (("retry", ", or the queue has no room for it"), ("purge", "")):
                    yes = ["--yes"] if action == "purge" else []
                    gone = place.start("godot", "dead", action, "zzz", *yes, "--url", url)
                    assert await gone.exit() == 1
                    assert gone.err == [f"godot dead {action}: there is no entry zzz{more} (see godot dead list)"]
                purged = place.start("godot", "dead", "purge", "--all", "--yes", "--url", url)
                assert (await purged.exit(), purged.out) == (0, ["purged=2 kept=0"])
                await peer.status_with(received=3, stored=1, dead=2)

        empty = place.start("godot", "dead", "list", "--url", url)
        assert (await empty.exit(), empty.out, empty.err) == (1, [], ["godot dead list: there are none"])


async def test_with_nobody_there_it_says_so_and_exits_3(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        nobody = place.start("godot", "dead", "list", "--url", "ws://127.0.0.1:9")
        assert await nobody.exit() == 3
        assert "ws://127.0.0.1:9" in nobody.err[0]
        assert nobody.out == []
