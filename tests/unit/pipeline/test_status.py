"""The lines for the operator: one at every change of state, and one a minute."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from godot.buffer.memory import MemoryBuffer
from godot.buffer.protocol import Counts
from godot.errors import BufferUnavailable, DeweyUnavailable
from godot.pipeline.status import Status, readiness, run_durability_check, run_status_line
from godot.service.lines import REPEAT_S, SAID_MAX, PeerLog
from tests.fakes import FakeBuffer
from tests.programs import parse_logfmt


class Bench:
    """A status, the lines that it wrote, and the buffer that it looks at."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.buffer = FakeBuffer(max_size=10)
        self.status = Status(self.lines.append, self.buffer, max_size=10)

    @property
    def events(self) -> list[str]:
        return [parse_logfmt(line)["event"] for line in self.lines]


# Changes of state


async def test_each_change_of_dewey_is_one_line_with_the_state() -> None:
    """MAINT-001."""
    bench = Bench()
    bench.status.delivered()
    assert bench.events == []  # it was up before
    for _ in range(3):
        bench.status.failed(DeweyUnavailable("Dewey: cannot connect"))
    for _ in range(3):
        bench.status.delivered()
    assert bench.events == ["dewey_down", "dewey_back"]
    down, back = map(parse_logfmt, bench.lines)
    assert (down["reason"], down["dewey"], down["redis"], down["queued"]) == (
        "Dewey: cannot connect",
        "down",
        "up",
        "0",
    )
    assert back["dewey"] == "up"


async def test_maintenance_that_fails_is_told_and_does_not_make_dewey_look_down() -> None:
    """A slow reader, or a backup that holds the table, once made Dewey look down while it stored."""
    bench = Bench()
    bench.status.delivered()
    bench.status.maintained()
    for _ in range(3):
        bench.status.not_maintained(DeweyUnavailable("Dewey: no answer"))
    assert bench.status.dewey_up
    for _ in range(3):
        bench.status.maintained()
    assert bench.events == ["maintenance_failed", "maintenance_back"]
    bench.status.failed(DeweyUnavailable("Dewey: gone"))
    bench.status.maintained()
    assert not bench.status.dewey_up, "it has not stored yet"


async def test_each_change_of_redis_is_one_line_with_the_state() -> None:
    """MAINT-001."""
    bench = Bench()
    for _ in range(3):
        bench.status.failed(BufferUnavailable("Redis: away"))
    for _ in range(3):
        bench.status.counted(Counts(queued=4, received=4))
    assert bench.events == ["redis_down", "redis_back"]
    down, back = map(parse_logfmt, bench.lines)
    assert (down["reason"], down["redis"], down["dewey"]) == ("Redis: away", "down", "unknown")
    assert (back["redis"], back["queued"], back["received"]) == ("up", "4", "4")


async def test_a_redis_that_answers_one_and_refuses_another_is_down_until_it_refuses_nobody() -> None:
    """A full one: what is taken from it and every look succeeds, and nothing is pushed."""
    bench = Bench()
    bench.status.failed(BufferUnavailable("Redis: OOM"), "batcher")
    bench.status.counted(Counts(queued=1, received=1), "sender")
    assert (await bench.status.snapshot())["redis"] == "down"
    bench.status.counted(Counts(queued=1, received=1), "batcher")
    assert bench.events == ["redis_down", "redis_back"]


async def test_dropping_is_one_line_when_it_begins_and_one_when_there_is_room_again() -> None:
    """GOD-005: every drop is counted and reported."""
    bench = Bench()
    bench.status.counted(Counts(queued=10, received=10))
    for dropped in (1, 5, 5, 9):
        bench.status.counted(Counts(queued=10, received=10 + dropped, dropped=dropped))
    assert bench.events == ["dropping"]
    bench.status.counted(Counts(queued=9, received=19, dropped=9, stored=1))
    bench.status.counted(Counts(queued=0, received=19, dropped=9, stored=10))
    assert bench.events == ["dropping", "dropping_ended"]
    began, ended = map(parse_logfmt, bench.lines)
    assert began["reason"] == "the queue is full (10 entries, MAX_QUEUE_SIZE); the oldest entries go"
    assert (began["dropped"], ended["dropped"]) == ("1", "9")


async def test_dropping_again_is_reported_again() -> None:
    """GOD-005."""
    bench = Bench()
    for dropped, queued in ((0, 10), (1, 10), (1, 5), (2, 10), (2, 0)):
        bench.status.counted(Counts(queued=queued, dropped=dropped))
    assert bench.events == ["dropping", "dropping_ended"] * 2


async def test_what_was_dropped_before_a_restart_is_not_reported_as_dropped_now() -> None:
    """GOD-005: the totals hold over restarts."""
    bench = Bench()
    bench.status.counted(Counts(queued=3, received=50_003, dropped=50_000))
    assert bench.events == []
    bench.status.counted(Counts(queued=10, received=50_011, dropped=50_001))
    assert bench.events == ["dropping"]


def test_what_happens_with_one_peer_again_and_again_is_one_line_a_minute_and_counted_each_time() -> None:
    """SEC-006: who knocks a thousand times does not fill the operator's disk."""
    bench = Bench()

    async def knock() -> None:
        for number in range(100):
            bench.status.peer("refused", f"10.0.0.7:{number}", "a token is needed")
            await trio.sleep(1)
        bench.status.peer("refused", "10.0.0.8:1", "a token is needed")
        bench.status.peer("refused", "10.0.0.8:2", "the token is not known")
        bench.status.peer("bug", "10.0.0.8:1", "KeyError")

    trio.run(knock, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [(said["event"], said["peer"], said.get("unsaid")) for said in map(parse_logfmt, bench.lines)] == [
        ("refused", "10.0.0.7:0", None),
        ("refused", "10.0.0.7:60", "59"),
        ("refused", "10.0.0.8:1", "39"),
        ("bug", "10.0.0.8:1", None),
    ]
    assert bench.status.refused_peers == 102


@pytest.mark.parametrize(
    ("peer", "reason", "lines"),
    [
        ("10.0.0.7:{0}", "Host {0} is not known here", 1),
        ("[fe80::7]:{0}", "the token {0} is not known", 1),
        ("10.0.0.{0}:1", "a token is needed", SAID_MAX),
    ],
    ids=["one host, any text", "one host of IPv6", "any host"],
)
async def test_whoever_is_refused_in_ever_new_words_does_not_fill_the_disk(
    autojump_clock: trio.testing.MockClock, peer: str, reason: str, lines: int
) -> None:
    """SEC-006: what was not said is counted in the next line, and the log of peers itself stays small."""
    written: list[str] = []
    log = PeerLog(written.append)
    for number in range(5_000):
        log.note("refused", peer.format(number), reason.format(number))
    assert len(written) == lines
    await trio.sleep(60)
    log.note("refused", peer.format(0), "again")
    assert parse_logfmt(written[-1])["unsaid"] == str(5_000 - lines)
    assert len(log._said) <= SAID_MAX


async def test_the_end_of_an_outage_says_how_long_it_was_and_what_it_cost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """MAINT-001, GOD-005: beside the totals, which hold over restarts."""
    bench = Bench()
    bench.status.counted(Counts(queued=10, received=60, dropped=50))
    bench.status.refused = 7
    bench.status.failed(DeweyUnavailable("Dewey: away"))
    await trio.sleep(2)
    bench.status.failed(BufferUnavailable("Redis: away"))
    bench.status.refused += 3
    bench.status.unconfirmed += 5
    await trio.sleep(10.25)
    bench.status.counted(Counts(queued=10, received=64, dropped=54))
    bench.status.refused += 1
    await trio.sleep(1)
    bench.status.delivered()
    costs = [
        (
            line["event"],
            line.get("lasted"),
            line.get("refused_meanwhile"),
            line.get("unconfirmed_meanwhile"),
            line.get("dropped_meanwhile"),
            line["dropped"],
        )
        for line in map(parse_logfmt, bench.lines)
    ]
    assert costs == [
        ("dewey_down", None, None, None, None, "50"),
        ("redis_down", None, None, None, None, "50"),
        ("redis_back", "10.2s", "3", "5", "4", "54"),
        ("dropping", None, None, None, None, "54"),
        ("dewey_back", "13.2s", "4", "5", "4", "54"),
    ]


async def test_a_redis_that_is_away_from_the_start_costs_nothing_of_what_was_dropped_before() -> None:
    """MAINT-001."""
    bench = Bench()
    bench.status.failed(BufferUnavailable("Redis: away"))
    bench.status.counted(Counts(queued=1, received=51, dropped=50))
    assert parse_logfmt(bench.lines[1])["dropped_meanwhile"] == "0"


async def test_the_end_of_dropping_says_how_many_went_and_comes_when_a_tenth_of_the_queue_is_free(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-005."""
    lines: list[str] = []
    status = Status(lines.append, MemoryBuffer(100), max_size=100)
    for dropped, queued in ((40, 100), (45, 100), (46, 95), (50, 91), (50, 90)):
        status.counted(Counts(queued=queued, dropped=dropped))
        await trio.sleep(2)
    began, ended = map(parse_logfmt, lines)
    assert (began["event"], ended["event"]) == ("dropping", "dropping_ended")
    assert (ended["lasted"], ended["dropped_meanwhile"], ended["dropped"]) == ("6.0s", "10", "50")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"dropped_for_bytes": 4},
            "the queue is full (1073741824 bytes, GODOT_MAX_QUEUE_BYTES); the oldest entries go",
        ),
        ({"vanished": 4}, "entries are gone from the queue in Redis: evicted, or taken by somebody else"),
        ({}, "the queue is full (10 entries, MAX_QUEUE_SIZE); the oldest entries go"),
    ],
)
async def test_dropping_says_which_bound_was_met_or_that_the_queue_was_robbed(
    more: dict[str, int], reason: str
) -> None:
    """GOD-005: a queue that a cache evicted is not called full."""
    bench = Bench()
    bench.status.counted(Counts(queued=10, received=10))
    bench.status.counted(Counts(queued=10, received=14, dropped=4, **more))  # type: ignore[arg-type]
    assert parse_logfmt(bench.lines[0])["reason"] == reason


async def test_totals_that_were_lost_in_redis_are_one_line_with_what_they_were_and_no_drop_is_made_up() -> None:
    """REL-004: counts were evicted, or deleted by FLUSHALL, while Godot runs."""
    bench = Bench()
    bench.status.counted(Counts(queued=5, received=105, stored=95, dropped=5, began=1000))
    bench.status.counted(Counts(queued=1, received=1))  # looked at before anything was written again
    bench.status.counted(Counts(queued=2, received=2, began=2000))
    bench.status.counted(Counts(queued=5, received=106, stored=95, dropped=5, began=1000))  # another lane, late
    bench.status.counted(Counts(queued=2, received=2, began=2000))
    assert bench.events == ["counts_lost"]
    line = parse_logfmt(bench.lines[0])
    assert (line["received"], line["stored"], line["queued"]) == ("105", "95", "5")


async def test_dead_entries_that_are_forgotten_are_told_of_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    for forgotten in (3, 4, 5, 6):
        bench.status.counted(Counts(dead=10, dead_forgotten=forgotten))
    assert bench.events == ["dead_forgotten"]
    await trio.sleep(REPEAT_S)
    bench.status.counted(Counts(dead=10, dead_forgotten=7))
    assert bench.events == ["dead_forgotten"] * 2


# Durability


async def test_each_change_of_durability_is_one_line(autojump_clock: trio.testing.MockClock) -> None:
    """REL-001, MAINT-001."""
    bench = Bench()
    unseen = bench.status.durable
    bench.status.checked(None)
    assert (unseen, bench.status.durable) == (None, True)
    assert bench.events == []
    for weakness in ("no AOF", "no AOF", "evicts", None, None):
        bench.status.pushed(Counts(weakness=weakness), by="batcher")
        await trio.sleep(2)
    assert bench.events == ["redis_not_durable", "redis_not_durable", "redis_durable"]
    assert [parse_logfmt(line).get("reason") for line in bench.lines] == ["no AOF", "evicts", None]
    assert parse_logfmt(bench.lines[-1])["lasted"] == "6.0s"


async def test_a_setting_that_changes_while_nobody_logs_is_seen_at_the_next_look(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-001: and logger_status says why."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_durability_check(bench.status, bench.buffer, interval_s=5))
        await trio.sleep(1)
        assert bench.status.durable
        bench.buffer.weak = "no AOF"
        await trio.sleep(5)
        state = await bench.status.snapshot()
        assert (state["durable"], state["not_durable"]) == (False, "no AOF")
        bench.buffer.weak = None
        await trio.sleep(5)
        assert "not_durable" not in await bench.status.snapshot()
        nursery.cancel_scope.cancel()
    assert bench.events == ["redis_not_durable", "redis_durable"]


# Looking


async def test_what_was_not_checked_yet_is_unknown_and_not_well() -> None:
    """A daemon that started while Dewey was away once said dewey=up, and durable=false of a Redis that was."""
    bench = Bench()
    await bench.buffer.push([b"1"])
    await bench.status.ask_first()
    bench.status.not_maintained(DeweyUnavailable("Dewey: cannot connect"))
    (line,) = map(parse_logfmt, bench.lines)
    said = [line[name] for name in ("queued", "redis", "durable", "dewey")]
    assert said == ["1", "up", "true", "unknown"]
    assert (await readiness(bench.status))[1]["status"] == "starting"
    bench.status.delivered()
    assert (await readiness(bench.status))[1]["status"] == "ready"


async def test_of_a_redis_that_is_away_from_the_start_nothing_is_said_but_that() -> None:
    bench = Bench()
    bench.buffer.away = True
    await bench.status.ask_first()
    state = await bench.status.snapshot()
    assert (state["redis"], state["durable"], state["dewey"]) == ("down", None, "unknown")
    assert "not_durable" not in state
    bench.buffer.away = False
    bench.status.pushed(await bench.buffer.counts(), by="batcher")
    assert bench.events == ["redis_down", "redis_back"]


async def test_looking_gives_every_number_and_who_is_up() -> None:
    """`received = stored + queued + in_flight + dropped + dead`, as logger_status answers it."""
    bench = Bench()
    await bench.buffer.push([b"%d" % number for number in range(12)])
    await bench.buffer.take(3)
    bench.status.refused = 2
    bench.status.failed(DeweyUnavailable("away"))
    assert await bench.status.snapshot() == {
        "received": 12,
        "stored": 0,
        "queued": 7,
        "in_flight": 3,
        "dropped": 2,
        "dead": 0,
        "queued_bytes": 9,
        "dropped_for_bytes": 0,
        "vanished": 0,
        "dead_forgotten": 0,
        "refused": 2,
        "unconfirmed": 0,
        "filtered": 0,
        "refused_peers": 0,
        "redis": "up",
        "durable": None,
        "dewey": "down",
    }


async def test_looking_while_redis_is_away_gives_what_was_last_heard_and_says_so() -> None:
    bench = Bench()
    bench.status.counted(Counts(queued=3, received=3))
    bench.buffer.away = True
    seen = await bench.status.snapshot()
    assert (seen["queued"], seen["redis"]) == (3, "down")
    assert bench.events == ["redis_down"]
    bench.buffer.away = False
    assert (await bench.status.snapshot())["redis"] == "up"
    assert bench.events == ["redis_down", "redis_back"]


async def test_the_status_line_comes_at_every_interval(autojump_clock: trio.testing.MockClock) -> None:
    """MAINT-001, MAINT-002: through stdout, never through its own logger_log."""
    bench = Bench()
    await bench.buffer.push([b"1", b"2"])
    with trio.move_on_after(150):
        await run_status_line(bench.status, interval_s=60)
    assert bench.events == ["status", "status"]
    line = parse_logfmt(bench.lines[0])
    del line["time"]
    assert line == {
        "event": "status",
        "queued": "2",
        "in_flight": "0",
        "received": "2",
        "stored": "0",
        "dropped": "0",
        "dead": "0",
        "queued_bytes": "2",
        "dropped_for_bytes": "0",
        "vanished": "0",
        "dead_forgotten": "0",
        "refused": "0",
        "unconfirmed": "0",
        "filtered": "0",
        "refused_peers": "0",
        "redis": "up",
        "durable": "unknown",
        "dewey": "unknown",
    }
