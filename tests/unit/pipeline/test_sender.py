"""The sender: oldest first, never given up, and to the exact instant of trio's virtual clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import attrs
import pytest
import trio
import trio.testing

from godot.buffer.protocol import Counts, DeadEntry, Drops
from godot.entries.entry import admit_json
from godot.errors import BatchRefused, DeweyUnavailable, NotInFlight
from godot.json.text import dumps, loads
from godot.pipeline.sender import POLL_S, Sender, describe_drops
from tests.fakes import FakeBuffer, FakeDewey, Held, numbers, raw_entries, raw_entry


@attrs.define
class Bench:
    """A sender between a buffer and a Dewey, and what it reports."""

    buffer: FakeBuffer = attrs.Factory(FakeBuffer)
    dewey: FakeDewey = attrs.Factory(FakeDewey)
    counts: list[Counts] = attrs.Factory(list)
    failures: list[tuple[float, str]] = attrs.Factory(list)
    deliveries: list[float] = attrs.Factory(list)
    wake: trio.MemorySendChannel[None] = attrs.field(init=False)
    sender: Sender = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wake, pushed = trio.open_memory_channel[None](1)
        self.sender = Sender(
            self.buffer,
            self.dewey,
            pushed,
            batch_size=100,
            on_counts=self.counts.append,
            on_failure=lambda exc: self.failures.append((trio.current_time(), str(exc))),
            on_delivery=lambda: self.deliveries.append(trio.current_time()),
            jitter=lambda delay: delay,
        )

    async def run_dry(self) -> Counts:
        """Run the sender as after the end of the batcher, until it returns."""
        self.wake.close()
        await self.sender.run()
        return await self.buffer.counts()


def foreign(message: str, **fields: object) -> bytes:
    """Serialise an entry as other local processes do (GOD-001)."""
    value = {"component": "gates", "level": "WARN", "message": message, "trace_id": None, "data": None, **fields}
    return dumps(value)


# Delivering


async def test_delivers_in_order_and_returns_when_the_batcher_has_ended_and_the_buffer_is_empty(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-003, REL-005: a drain that has nothing to wait for takes no time."""
    bench = Bench()
    await bench.buffer.push(raw_entries(250))
    assert await bench.run_dry() == Held(received=250, stored=250)
    assert bench.dewey.stored == numbers(250)
    assert trio.current_time() == 0


async def test_takes_a_batch_and_up_to_a_thousand_while_more_than_that_are_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    await bench.buffer.push(raw_entries(2400))
    await bench.run_dry()
    assert bench.dewey.sizes == [100, 1000, 1000, 300]


async def test_goes_back_to_small_batches_when_the_backlog_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    await bench.buffer.push(raw_entries(1300))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(1)
        await bench.buffer.push(raw_entries(150, first=1300))
        await trio.sleep(1)
        assert bench.dewey.sizes == [100, 1000, 200, 100, 50]
        nursery.cancel_scope.cancel()


async def test_wakes_at_once_when_the_batcher_has_pushed(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(3.03125)
        await bench.buffer.push(raw_entries(1))
        await bench.wake.send(None)
        await trio.sleep(1)
        assert bench.deliveries[1:] == [3.03125]
        nursery.cancel_scope.cancel()


async def test_while_there_is_nothing_to_deliver_dewey_is_probed_every_ten_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The status tells what would become of an entry, and nothing else than storing decides it."""
    bench = Bench()
    bench.dewey.down_until = 15.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(35)
        assert [when for when, _ in bench.failures] == [pytest.approx(0.1), pytest.approx(10.1, abs=0.2)]
        assert bench.deliveries == [pytest.approx(20.1, abs=0.3), pytest.approx(30.1, abs=0.4)]
        assert [len(batch) for _, batch in bench.dewey.attempts] == [0] * 4
        nursery.cancel_scope.cancel()


async def test_otherwise_it_looks_for_what_others_pushed_every_tenth_of_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-001: whoever LPUSHes by himself wakes nobody."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(1.03125)
        bench.buffer.queue.append(foreign("hello"))
        await trio.sleep(1)
        assert bench.dewey.stored == ["hello"]
        assert bench.deliveries[1:] == [pytest.approx(1.1)]
        looks = [later - earlier for earlier, later in pairwise(bench.buffer.taken_at[:10])]
        assert looks == [pytest.approx(POLL_S)] * 9
        nursery.cancel_scope.cancel()


async def test_what_was_in_flight_when_the_sender_before_died_is_delivered_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004: exactly once, in order."""
    bench = Bench()
    await bench.buffer.push(raw_entries(8))
    await bench.buffer.take(5)
    assert await bench.run_dry() == Held(received=8, stored=8)
    assert bench.dewey.stored == numbers(8)


async def test_cancelled_in_the_middle_of_a_batch_it_leaves_the_batch_in_the_buffer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: what is not delivered in time stays."""
    bench = Bench()
    bench.dewey.down_until = 100.0
    await bench.buffer.push(raw_entries(150))
    with trio.move_on_after(0.25):
        await bench.run_dry()
    assert await bench.buffer.counts() == Held(received=150, queued=50, in_flight=100)


async def test_reports_what_the_buffer_holds_and_each_delivery(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    await bench.buffer.push(raw_entries(150))
    await bench.run_dry()
    assert bench.counts == [
        Held(received=150, queued=150),  # the look at the start
        Held(received=150, queued=50, stored=100),
        Held(received=150, stored=150),
    ]
    assert bench.deliveries == [0, 0]


# While Dewey is down


async def test_retries_a_batch_three_times_quickly_then_hands_it_back_and_probes_ever_later_up_to_30_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-002, GOD-004: exponential backoff, and the batch waits in Redis."""
    bench = Bench()
    bench.dewey.down_until = 125.0
    await bench.buffer.push(raw_entries(150))
    assert await bench.run_dry() == Held(received=150, stored=150)
    batches, probes = bench.dewey.attempts[:4], bench.dewey.attempts[4:]
    assert [when for when, _ in batches] == pytest.approx([0, 0.1, 0.3, 0.7])
    assert [len(batch) for _, batch in batches] == [100] * 4
    since = [when - 0.7 for when, _ in probes]
    assert since == pytest.approx([1, 3, 7, 15, 31, 61, 91, 121, 151, 151, 151])
    assert [len(batch) for _, batch in probes] == [0] * 9 + [100, 50]
    assert [why for _, why in bench.failures] == ["Dewey: down"] * 12
    assert bench.dewey.stored == numbers(150)


async def test_a_quick_retry_that_works_costs_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    """REL-002."""
    bench = Bench()
    bench.dewey.down_until = 0.25
    await bench.buffer.push(raw_entries(1))
    await bench.run_dry()
    assert bench.dewey.tried_at == pytest.approx([0, 0.1, 0.3])


async def test_each_batch_has_its_own_quick_retries(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    bench.dewey.down_until = 1.0  # its first probe works
    await bench.buffer.push(raw_entries(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(5)
        bench.dewey.down_until = 5.25
        await bench.buffer.push(raw_entries(1, first=1))
        await bench.wake.send(None)
        await trio.sleep(5)
        assert bench.dewey.tried_at == pytest.approx([0, 0.1, 0.3, 0.7, 1.7, 1.7, 5, 5.1, 5.3])
        nursery.cancel_scope.cancel()


async def test_while_it_probes_nothing_is_in_flight_and_the_bound_of_the_buffer_is_exact(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-005, PERF-003: a bound of 1,000 holds 1,000, and not 1,000 beside a batch in flight."""
    bench = Bench(FakeBuffer(max_size=1000))
    bench.dewey.down_until = 60.0
    await bench.buffer.push(raw_entries(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(5)
        for first in range(100, 1500, 100):
            await bench.buffer.push(raw_entries(100, first))
        assert await bench.buffer.counts() == Held(received=1500, queued=1000, dropped=500)
        await trio.sleep(60)
        assert await bench.buffer.counts() == Held(received=1500, stored=1000, dropped=500)
        assert bench.dewey.stored == [str(number) for number in range(500, 1500)]  # the newest, in order
        nursery.cancel_scope.cancel()


async def test_a_day_of_downtime_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """REL-002: a batch is never discarded because Dewey is down."""
    bench = Bench()
    bench.dewey.down_until = 86_400.0
    await bench.buffer.push(raw_entries(500))
    assert await bench.run_dry() == Held(received=500, stored=500)
    assert 86_400 <= trio.current_time() <= 86_430


async def test_a_batch_whose_answer_was_lost_is_stored_once(autojump_clock: trio.testing.MockClock) -> None:
    """REL-004: at least once on the way, once in the table."""

    class LosesItsFirstAnswer(FakeDewey):
        async def store(self, entries: Sequence[bytes]) -> None:
            await super().store(entries)
            if len(self.attempts) == 1:
                raise DeweyUnavailable("Dewey: the connection broke before the answer")

    bench = Bench(dewey=LosesItsFirstAnswer())
    await bench.buffer.push(raw_entries(3))
    bench.buffer.queue.append(foreign("without an id"))
    assert await bench.run_dry() == Held(received=4, stored=4)
    (_, first), (_, second) = bench.dewey.attempts
    assert first == second
    page = await bench.dewey.ask("dewey_query_logs", {})
    assert loads(page.json)["count"] == 4


# What others pushed, and what is no entry


async def test_what_others_push_is_looked_at_although_they_keep_the_list_at_its_length(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-001: LPUSH with LTRIM; one such entry of the time `infinity` made every query fail."""
    bench = Bench()
    await bench.buffer.push(raw_entries(3))
    own = loads(raw_entry("own"))
    for raw in (foreign("without an id"), dumps({**own, "created_at": "infinity"})):
        bench.buffer.queue.popleft()
        bench.buffer.queue.append(raw)
    counts = await bench.run_dry()
    assert (counts.stored, counts.dead) == (2, 1)
    assert bench.dewey.stored == ["2", "without an id"]


async def test_an_entry_without_id_gets_one_and_its_time_before_it_is_first_sent_and_keeps_both(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-001, REL-004: sent again, also by the sender after this one, it is the same entry."""
    bench = Bench()
    bench.dewey.down_until = 0.25
    bench.buffer.queue.append(foreign("without either"))
    with trio.move_on_after(0.2):
        await bench.sender.run()
    assert await bench.run_dry() == Held(received=1, stored=1)
    sent = [loads(raw) for _, batch in bench.dewey.attempts for raw in batch]
    assert len(sent) >= 3
    assert len({(each["id"], each["created_at"]) for each in sent}) == 1
    assert UUID(sent[0]["id"]).version == 7
    assert sent[0]["created_at"].endswith("Z")


async def test_an_entry_of_others_keeps_what_it_brought(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-001: component, level, message, trace_id, data, created_at, no id."""
    bench = Bench()
    trace_id = "0af76519-16cd-43dd-8448-eb211c80319c"
    brought = {"trace_id": trace_id, "data": {"a": [1, 2.5]}, "created_at": "2026-11-20T08:30:00.5+01:00"}
    bench.buffer.queue.append(foreign("brought", **brought))
    await bench.run_dry()
    (kept,) = bench.dewey.memory.kept
    assert (kept.component, kept.level, kept.trace_id) == ("gates", "WARN", trace_id)
    assert (kept.data, kept.created_at) == ({"a": [1, 2.5]}, "2026-11-20T07:30:00.500000Z")


async def test_what_the_listener_completed_is_sent_as_the_very_same_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    batch = [raw_entry("one"), raw_entry("two", data={"big": 2**70, "text": "\\u0000 ✓"})]
    await bench.buffer.push(batch)
    await bench.run_dry()
    assert bench.dewey.attempts == [(0, batch)]


GARBAGE: list[tuple[bytes, str]] = [
    (b"not JSON", "not JSON: expecting value at character 1"),
    (b"", "not JSON: expecting value"),
    (b'["an", "array"]', "must be an object, not an array"),
    (b"7", "must be an object, not a number"),
    (b'{"component": "a", "message": "b"}', "level: required, but missing"),
    (b'{"component": "a", "level": "LOUD", "message": "b"}', "level: must be one of ERROR"),
    (b'{"component": "a", "level": "INFO", "message": "b", "id": "7", "created_at": null}', "id: must be a UUID"),
    (b'{"component": "a", "level": "INFO", "message": "\x00"}', "invalid control character at character 49"),
    (b'{"component": "a", "level": "INFO", "message": "\xed\xa0\x80"}', "no UTF-8 at byte 49"),
    (b'{"component": "a", "level": "INFO", "message": "b", "data": {"x": 1e999}}', "1e999 is too large"),
    (b"[" * 100_000, "nested too deeply"),
    # These two have an id and a time, so Dewey is the first to look inside.
    (b'{"component": "a", "message": "b", "id": "x", "created_at": "y"}', "level: required, but missing"),
    (foreign("c", id="x", created_at="2026-11-20T08:30:00Z"), "id: must be a UUID"),
]


@pytest.mark.parametrize(("garbage", "reason"), GARBAGE, ids=[reason for _, reason in GARBAGE])
async def test_garbage_in_the_queue_is_put_aside_with_the_reason_and_the_others_are_stored(
    garbage: bytes, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    """An entry is never the reason that the pipeline stands still."""
    bench = Bench()
    bench.buffer.queue.extend([raw_entry("before"), garbage, foreign("after")])
    assert await bench.run_dry() == Held(received=3, stored=2, dead=1)
    assert bench.dewey.stored == ["before", "after"]
    (dead,) = bench.buffer.dead
    assert dead.raw == garbage
    assert reason in dead.reason
    assert trio.current_time() == 0


async def test_a_batch_of_nothing_but_garbage_is_put_aside_and_dewey_is_not_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    bench.buffer.queue.extend([b"1", b"2"])
    assert await bench.run_dry() == Held(received=2, dead=2)
    assert bench.dewey.attempts == []


@pytest.mark.parametrize(
    ("escape", "shown"), [("\\u0000", "\N{SYMBOL FOR NULL}"), ("\\ud800", "\N{REPLACEMENT CHARACTER}")]
)
async def test_a_nul_or_a_lone_surrogate_written_as_json_allows_it_is_stored_visibly(
    escape: str, shown: str, autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench()
    bench.buffer.queue.append(b'{"component":"a","level":"INFO","message":"<%b>"}' % escape.encode())
    assert await bench.run_dry() == Held(received=1, stored=1)
    assert bench.dewey.stored == [f"<{shown}>"]


async def test_an_id_that_names_a_time_beyond_the_calendar_does_not_stop_the_pipeline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    bench.buffer.queue.append(foreign("far", id="ffffffff-ffff-7fff-bfff-ffffffffffff"))
    assert await bench.run_dry() == Held(received=1, stored=1)


async def test_the_entries_that_dewey_names_are_put_aside_and_the_others_are_stored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """DEW-003: by index and fault; the refused batch is not retried whole."""
    bench = Bench()
    bench.dewey.memory.refuses = {"1", "4"}
    batch = raw_entries(6)
    await bench.buffer.push(batch)
    assert await bench.run_dry() == Held(received=6, stored=4, dead=2)
    assert bench.dewey.stored == ["0", "2", "3", "5"]
    assert list(bench.buffer.dead) == [DeadEntry(batch[1], "not today"), DeadEntry(batch[4], "not today")]
    assert bench.dewey.sizes == [6, 4]
    assert trio.current_time() == 0
    assert bench.failures == []


async def test_entries_refused_while_dewey_comes_and_goes_are_put_aside_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class GoesAfterRefusing(FakeDewey):
        async def store(self, entries: Sequence[bytes]) -> None:
            try:
                await super().store(entries)
            except BatchRefused:
                self.down_until = trio.current_time() + 5
                raise

    bench = Bench(dewey=GoesAfterRefusing())
    bench.dewey.memory.refuses = {"1"}
    await bench.buffer.push(raw_entries(3))
    assert await bench.run_dry() == Held(received=3, stored=2, dead=1)
    assert bench.dewey.stored == ["0", "2"]


# Drops


def drops(*sizes: int, last: str | None = "2026-11-20T08:30:00.000000Z") -> Drops:
    components = {f"c{number}": size for number, size in enumerate(sizes)}
    return Drops(sum(sizes), "2026-11-20T08:00:00.000000Z", last, components, others=0)


async def overflow(bench: Bench) -> None:
    """Drop 30 of 130 entries, ten of which others have written."""
    await bench.buffer.push([*raw_entries(10), *(foreign(str(number)) for number in range(10, 20))])
    await bench.buffer.push(raw_entries(110, first=20))


async def test_a_run_of_drops_is_told_of_by_one_entry_where_the_hole_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-005: a hole is visible where people read; MAINT-002: not through logger_log."""
    bench = Bench(FakeBuffer(max_size=100))
    await overflow(bench)
    oldest = loads(bench.buffer.queue[0])
    assert await bench.run_dry() == Held(received=131, stored=101, dropped=30)
    page = loads((await bench.dewey.ask("dewey_query_logs", {"component": "godot"})).json)
    (hole,) = page["entries"]
    assert (hole["level"], hole["trace_id"]) == ("WARN", None)
    assert hole["message"] == "30 entries are missing: the queue was full (MAX_QUEUE_SIZE), and the oldest went"
    data = hole["data"]
    assert (data["dropped"], data["components"], data["others"]) == (30, {"relay": 20, "gates": 10}, 0)
    assert data["from"] <= data["to"] == hole["created_at"] <= oldest["created_at"]
    assert len(bench.dewey.stored) == 101


async def test_it_comes_only_when_the_run_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-005."""
    bench = Bench(FakeBuffer(max_size=100))
    bench.dewey.down_until = 50.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        for first in range(0, 400, 10):
            await bench.buffer.push(raw_entries(10, first))
            await trio.sleep(1)
        assert (await bench.buffer.counts()).dropped == 300
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [message for message in bench.dewey.stored if "missing" in message] == [
        "300 entries are missing: the queue was full (MAX_QUEUE_SIZE), and the oldest went"
    ]
    assert await bench.buffer.counts() == Held(received=401, stored=101, dropped=300)


async def test_a_hole_whose_answer_was_lost_is_told_once_under_the_same_id(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-005, REL-004: also when the daemon dies after sending it."""

    class LosesTheAnswer(FakeDewey):
        lost = 0

        async def store(self, entries: Sequence[bytes]) -> None:
            await super().store(entries)
            if entries and b"are missing" in entries[0] and self.lost < 2:
                self.lost += 1
                raise DeweyUnavailable("Dewey: the connection broke before the answer")

    bench = Bench(FakeBuffer(max_size=100), LosesTheAnswer())
    await overflow(bench)
    for _ in range(3):  # three lives
        await bench.run_dry()
    told = {raw for _, batch in bench.dewey.attempts for raw in batch if b"are missing" in raw}
    assert len(told) == 1
    assert await bench.buffer.counts() == Held(received=131, stored=101, dropped=30)
    page = loads((await bench.dewey.ask("dewey_query_logs", {"component": "godot"})).json)
    assert page["count"] == 1


async def test_a_hole_that_dewey_refuses_is_put_aside_and_stops_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(FakeBuffer(max_size=100))
    bench.dewey.memory.refuses = {"30 entries are missing: the queue was full (MAX_QUEUE_SIZE), and the oldest went"}
    await overflow(bench)
    assert await bench.run_dry() == Held(received=131, stored=100, dropped=30, dead=1)
    assert bench.buffer.dead[0].reason == "not today"


@pytest.mark.parametrize("last", [None, "soon", "", "9999-99-99"])
def test_a_hole_behind_an_entry_without_a_time_is_told_of_now(last: str | None) -> None:
    value = loads(describe_drops(drops(5, last=last)))
    assert value["data"]["to"] == last
    assert abs((datetime.now(UTC) - datetime.fromisoformat(value["created_at"])).total_seconds()) < 5


def test_what_others_call_themselves_cannot_make_the_entry_of_a_hole_invalid() -> None:
    """GOD-001."""
    wild = Drops(3, None, None, {"\x00\ud800": 1, "x" * 255: 2}, others=0)
    admit_json(loads(describe_drops(wild)), [])


# While the buffer is away


async def test_a_buffer_that_is_away_is_reported_and_asked_again_every_half_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-001: for however long; what waited there is delivered within half a second of its return."""
    bench = Bench()
    await bench.buffer.push(raw_entries(2))
    bench.buffer.away = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        await trio.sleep(3600.1)
        assert bench.failures == [(0.5 * n, "Redis: away") for n in range(7201)]
        bench.buffer.away = False
        await trio.sleep(0.5)
        assert bench.dewey.tried_at == [3600.5]
        bench.wake.close()
    assert await bench.buffer.counts() == Held(received=2, stored=2)


async def test_a_dead_senders_batch_is_looked_for_every_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """REL-004."""
    looked: list[float] = []

    class Leased(FakeBuffer):
        async def hand_back(self) -> Counts:
            looked.append(trio.current_time())
            return await super().hand_back()

    bench = Bench(Leased())
    with trio.move_on_after(25):
        await bench.sender.run()
    assert looked == [0, pytest.approx(10, abs=POLL_S), pytest.approx(20, abs=2 * POLL_S)]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_sender_that_finds_its_batch_given_to_another_takes_again_and_redis_is_not_called_down(
    kept: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """GOD-001, REL-004: it slept longer than its lease, before or after the entries of others got their ids."""

    class Slept(FakeBuffer):
        slept = False

        async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
            if bool(keep) == kept and not self.slept:
                self.slept = True
                self.queue.extendleft(reversed(self._in_flight))
                self._in_flight = []
                raise NotInFlight("what was taken was given to another daemon meanwhile: the lease had run out")
            return await super().settle(keep, dead)

    buffer = Slept()
    bench = Bench(buffer)
    await bench.buffer.push(raw_entries(2))
    buffer.queue.append(foreign("of another"))
    await bench.run_dry()
    assert buffer.slept
    assert not bench.failures
    assert bench.dewey.sizes == ([3] if kept else [3, 3]), "nothing is sent under ids that the buffer did not keep"
    assert len({entry.id for entry in bench.dewey.memory.kept}) == 3


@pytest.mark.parametrize(
    ("for_bytes", "named"),
    [(0, "(MAX_QUEUE_SIZE)"), (7, "(GODOT_MAX_QUEUE_BYTES)"), (3, "(MAX_QUEUE_SIZE and GODOT_MAX_QUEUE_BYTES)")],
)
def test_a_hole_names_the_setting_that_was_too_small(for_bytes: int, named: str) -> None:
    """GOD-005."""
    hole = loads(describe_drops(Drops(7, None, None, {}, 7, for_bytes)))
    assert hole["message"] == f"7 entries are missing: the queue was full {named}, and the oldest went"
    assert hole["data"]["for_bytes"] == for_bytes
