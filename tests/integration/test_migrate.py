"""Tests of the schema and of what brings a database to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.postgres.migrate import Migration, migrate, migrations
from dewey_logs.query import Query
from dewey_logs.search import SEARCHED_CHARS, Search
from dewey_logs.store.batch import Batch
from godot.entries.entry import admit_json
from godot.errors import ConfigError
from tests.postgres_servers import Database, Server


@pytest.fixture
def empty(postgres: Server) -> Iterator[Database]:
    """A database without a schema."""
    with Database(postgres, template="template1") as database:
        yield database


@contextmanager
def connected(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Connect as `migrate` wants it."""
    with closing(psycopg.connect(database.url, autocommit=True)) as connection:
        yield connection


def test_the_steps_are_numbered_without_gaps() -> None:
    assert [step.version for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_a_migration_is_applied_once(empty: Database) -> None:
    with connected(empty) as connection:
        assert migrate(connection) == [step.name for step in migrations()]
        assert migrate(connection) == []
    assert empty.value("SELECT count(*) FROM log_migrations") == len(migrations())


def test_several_that_start_at_once_apply_it_once(empty: Database) -> None:
    barrier = Barrier(4)

    def start() -> list[str]:
        with connected(empty) as connection:
            barrier.wait(timeout=10)
            return migrate(connection)

    with ThreadPoolExecutor(4) as threads:
        applied = [future.result(timeout=30) for future in [threads.submit(start) for _ in range(4)]]
    assert sorted(sum(applied, [])) == [step.name for step in migrations()]  # noqa: RUF017 - four short lists


def test_a_step_that_fails_leaves_nothing_behind_and_is_tried_again(empty: Database) -> None:
    good = Migration(1, "0001_good.sql", "CREATE TABLE good ()")
    bad = Migration(2, "0002_bad.sql", "CREATE TABLE half (); SELECT 1/0")
    mended = Migration(2, "0002_bad.sql", "CREATE TABLE half (); SELECT 1/1")
    with connected(empty) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, (good, bad))
        assert empty.value("SELECT to_regclass('good') IS NOT NULL AND to_regclass('half') IS NULL")
        assert migrate(connection, (good, mended)) == ["0002_bad.sql"]


def test_what_was_stored_before_there_were_counts_is_counted(empty: Database) -> None:
    """DEW-010: a migration from the first schema, with entries in it."""
    with connected(empty) as connection:
        migrate(connection, migrations()[:1])
        empty.execute(
            "INSERT INTO logs SELECT gen_random_uuid(), NULL, 'c' || n % 3, 'INFO', '', NULL, "
            "timestamptz '2026-11-20 23:59:59.5Z' + n * interval '1 s' FROM generate_series(0, 8) AS n"
        )
        migrate(connection)
    counted = "SELECT day::text, component, level, entries FROM log_counts ORDER BY 1, 2"
    assert empty.execute(counted) == [
        ("2026-11-20", "c0", "INFO", 1),
        ("2026-11-21", "c0", "INFO", 2),
        ("2026-11-21", "c1", "INFO", 3),
        ("2026-11-21", "c2", "INFO", 3),
    ]
    empty.execute("DELETE FROM logs WHERE component = 'c1'")
    assert empty.value("SELECT sum(entries) FROM log_counts") == 6
    empty.execute("TRUNCATE logs")
    assert empty.value("SELECT count(*) FROM log_counts") == 0


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    database.execute("INSERT INTO log_migrations (version, name) VALUES (999, '0999_later.sql')")
    with connected(database) as connection, pytest.raises(ConfigError, match="schema version 999"):
        migrate(connection)


@pytest.mark.parametrize("version", range(1, len(migrations())))
def test_a_database_from_before_the_table_had_a_name_of_its_own_loses_nothing(empty: Database, version: int) -> None:
    with connected(empty) as connection:
        migrate(connection, migrations()[:version])
        connection.execute("ALTER TABLE log_migrations RENAME TO schema_migrations")
        applied = empty.execute("SELECT * FROM schema_migrations ORDER BY version")
        assert migrate(connection) == [step.name for step in migrations()[version:]]
    assert empty.execute("SELECT * FROM log_migrations ORDER BY version")[:version] == applied
    assert empty.value("SELECT to_regclass('schema_migrations') IS NULL")


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ("CREATE TABLE logs (line text)", "table public.logs"),
        ("CREATE VIEW log_counts AS SELECT 1", "view public.log_counts"),
        (
            "CREATE TABLE log_pins (); CREATE TABLE logger_config ()",
            "table public.log_pins, table public.logger_config",
        ),
    ],
)
def test_a_database_that_has_a_table_of_that_name_is_refused_before_anything_is_made(
    empty: Database, theirs: str, named: str
) -> None:
    empty.execute(theirs)
    relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    before = empty.execute(relations)
    with connected(empty) as connection, pytest.raises(ConfigError, match=f"{named}; point DATABASE_URL to a database"):
        migrate(connection)
    assert empty.execute(relations) == before


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean)",
        "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)",
        "CREATE TABLE schema_migrations (version integer, name text, applied_at timestamptz)",
    ],
)
def test_migrations_of_other_programs_are_left_alone(empty: Database, theirs: str) -> None:
    empty.execute(theirs)
    empty.execute("INSERT INTO schema_migrations (version) VALUES (20261120083000 % 1000000)")
    with connected(empty) as connection:
        assert len(migrate(connection)) == len(migrations())
    assert empty.value("SELECT count(*) FROM schema_migrations") == 1


def test_a_later_step_that_meets_something_of_its_name_says_which(empty: Database) -> None:
    with connected(empty) as connection:
        migrate(connection, migrations()[:3])
        empty.execute("CREATE TABLE log_pins ()")
        with pytest.raises(ConfigError, match=r'0004_retention\.sql .* "log_pins" already exists; rename that'):
            migrate(connection)


def test_a_database_without_a_schema_to_make_tables_in_is_refused(empty: Database) -> None:
    empty.execute("DROP SCHEMA public")
    with connected(empty) as connection, pytest.raises(ConfigError, match="search_path names none that exists"):
        migrate(connection)


def test_a_database_that_is_not_utf8_is_refused(postgres: Server) -> None:
    with (
        Database(postgres, template="template0 ENCODING 'LATIN1'") as latin,
        connected(latin) as connection,
        pytest.raises(ConfigError, match="LATIN1"),
    ):
        migrate(connection)


def test_only_core_postgresql_is_needed(database: Database) -> None:
    assert database.execute("SELECT extname FROM pg_extension") == [("plpgsql",)]


def test_the_prefix_that_is_searched_is_the_one_that_the_program_knows(database: Database) -> None:
    database.execute("CREATE TABLE message AS SELECT repeat('x ', 32767) || ' yes no' AS text")
    assert SEARCHED_CHARS == 65_536
    found = database.value("SELECT array_length(tsvector_to_array(log_search_vector(text)), 1) FROM message")
    assert found == 2  # x and, cut off, "y"


@pytest.mark.parametrize("character", list("""!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"""))
def test_every_punctuation_separates_words(database: Database, character: str) -> None:
    """On both sides: in a message and in what is searched."""
    text = f"one{character}two {character}5{character}"
    search = Search.parse(f"one{character}two").websearch()
    with connected(database) as connection:
        ((words, found),) = connection.execute(
            "SELECT tsvector_to_array(log_search_vector(%(text)s)), "
            "log_search_vector(%(text)s) @@ websearch_to_tsquery('simple', %(search)s)",
            {"text": text, "search": search},
        )
    assert words == ["5", "one", "two"]
    assert found


OLD_INSERT = (
    "INSERT INTO logs (id, component, level, message, created_at) "
    "SELECT gen_random_uuid(), 'c' || n % 3, 'INFO', 'entry', now() - n * interval '1 h' "
    "FROM generate_series(1, 50) AS n"
)


@pytest.mark.parametrize("version", range(1, len(migrations())))
async def test_every_earlier_version_comes_forward_with_what_is_in_it_while_entries_arrive(
    empty: Database, version: int
) -> None:
    """An older Dewey may still be storing; what it stores while the new one migrates is counted too."""
    with connected(empty) as connection:
        migrate(connection, migrations()[:version])
    for _ in range(4):
        empty.execute(OLD_INSERT)
    stop = Event()
    inserted = 4

    def go_on() -> None:
        nonlocal inserted
        while not stop.is_set():
            empty.execute(OLD_INSERT)
            inserted += 1

    with ThreadPoolExecutor(1) as threads:
        arriving = threads.submit(go_on)
        with connected(empty) as connection:
            assert len(migrate(connection)) == len(migrations()) - version
        stop.set()
        arriving.result(timeout=30)
    with trio.fail_after(30), closing(PostgresStore(empty.url)) as store:
        await store.maintain(ahead_days=1, retention_days=7)
        stats = await store.stats()
        assert stats.total == 50 * inserted
        assert sum(stats.by_component.values()) == empty.value("SELECT count(*) FROM logs")
        fields = {"component": "new", "level": "INFO", "message": "new"}
        await store.store(Batch.of_entries([admit_json(fields, [])]))
        (newest,) = (await store.query(Query(limit=1))).entries
        assert newest.message == "new"
