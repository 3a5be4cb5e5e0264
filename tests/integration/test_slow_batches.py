"""What PostgreSQL breaks off: one entry or one batch that it cannot store in time stops nothing else (REL-002).

The sender, the guard and Dewey's tools are the real ones, on a real database which a trigger makes slow or sick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.postgres import store as postgres_module
from dewey_logs.store.batch import Batch
from dewey_logs.tools import dewey_tools
from godot.buffer.memory import MemoryBuffer
from godot.buffer.protocol import Counts
from godot.errors import DeweyFailed, DeweyUnavailable
from godot.mcp.toolbox import Toolbox
from godot.pipeline.dewey import DirectDewey
from godot.pipeline.sender import Sender
from tests.fakes import raw_entries, raw_entry
from tests.postgres_servers import Database, Server, binaries, running_server

ENOUGH = 60


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have PostgreSQL break off a batch after half a second instead of ten."""
    monkeypatch.setattr(postgres_module, "WRITE_TIMEOUT_S", 0.5)


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server that the test may crash."""
    with running_server(next(reversed(binaries().values()))) as server:
        yield server


def before_each_row(database: Database, body: str) -> None:
    """Have PostgreSQL do something for each entry that it stores."""
    database.execute(f"CREATE FUNCTION sick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$")
    database.execute("CREATE TRIGGER sick BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION sick()")


async def deliver(database: Database, batch: list[bytes]) -> Counts:
    """Deliver until nothing is left that could be."""
    buffer = MemoryBuffer(1_000)
    await buffer.push(batch)
    wake, pushed = trio.open_memory_channel[None](1)
    wake.close()
    with trio.fail_after(ENOUGH), closing(PostgresStore(database.url)) as store:
        dewey = DirectDewey(Toolbox(dewey_tools(store)))
        await Sender(
            buffer, dewey, pushed, batch_size=100, on_counts=lambda _: None, on_failure=lambda _: None,
            on_delivery=lambda: None, jitter=lambda delay: delay / 100,
        ).run()  # fmt: skip
    return await buffer.counts()


@pytest.mark.parametrize(
    "sickness",
    [
        "PERFORM pg_sleep(30);",
        "RAISE 'invalid memory alloc request size' USING ERRCODE = 'XX000';",
        "RAISE 'out of memory' USING ERRCODE = '53200';",
    ],
)
async def test_one_entry_that_postgresql_cannot_store_in_time_stops_none_of_the_20_behind_it(
    database: Database, sickness: str
) -> None:
    before_each_row(database, f"IF NEW.message = 'sick' THEN {sickness} END IF;")
    counts = await deliver(database, [raw_entry("sick"), *raw_entries(20)])
    assert (counts.stored, counts.dead, counts.queued) == (20, 1, 0)
    assert database.value("SELECT count(*) FROM logs") == 20


async def test_an_entry_of_which_the_server_process_dies_stops_none_of_the_others(mortal: Server) -> None:
    """As when the kernel ends it for want of memory."""
    with Database(mortal) as database:
        before_each_row(
            database,
            "IF NEW.message = 'sick' THEN "
            "EXECUTE format('COPY (SELECT 1) TO PROGRAM ''kill -9 %s''', pg_backend_pid()); END IF;",
        )
        counts = await deliver(database, [*raw_entries(4), raw_entry("sick"), *raw_entries(3)])
        assert (counts.stored, counts.dead, counts.queued) == (7, 1, 0)


@pytest.mark.parametrize("number", [16, 20, 33])
async def test_a_batch_that_is_too_slow_as_a_whole_gets_through_in_halves(database: Database, number: int) -> None:
    before_each_row(database, "PERFORM pg_sleep(0.04);")
    counts = await deliver(database, raw_entries(number))
    assert (counts.stored, counts.dead, counts.queued) == (number, 0, 0)
    assert database.value("SELECT count(*) FROM logs") == number


@contextmanager
def stopped(database: Database) -> Iterator[None]:
    database.server.stop()
    yield
    database.server.start()


@contextmanager
def locked(database: Database) -> Iterator[None]:
    with closing(psycopg.connect(database.url)) as other:
        other.execute("LOCK TABLE logs")
        yield


@contextmanager
def read_only(database: Database) -> Iterator[None]:
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    yield
    with closing(psycopg.connect(database.url, autocommit=True)) as other:
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {database.name} RESET default_transaction_read_only".encode())


@pytest.mark.parametrize("outage", [stopped, locked, read_only])
async def test_a_database_that_is_down_suspects_no_entry(
    mortal: Server, outage: Callable[[Database], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "WRITE_LOCK_TIMEOUT_S", 0.1)
    with trio.fail_after(ENOUGH), Database(mortal) as database, closing(PostgresStore(database.url)) as store:
        dewey = DirectDewey(Toolbox(dewey_tools(store)))
        with outage(database):  # type: ignore[attr-defined]
            for _ in range(3):
                with pytest.raises(DeweyUnavailable) as caught:
                    await dewey.store(raw_entries(2))
                assert not isinstance(caught.value, DeweyFailed)
        store.close()
        await dewey.store(raw_entries(2))


async def test_a_probe_waits_for_the_disk_as_a_batch_does(database: Database) -> None:
    """Else a disk that hangs would make every entry look guilty."""
    with trio.fail_after(ENOUGH), closing(PostgresStore(database.url)) as store:
        before = database.value("SELECT pg_current_wal_flush_lsn()")
        await store.store(Batch.of_entries([]))
        assert database.value(f"SELECT pg_current_wal_flush_lsn() > '{before}'")
    assert database.value("SELECT count(*) FROM logs") == 0
