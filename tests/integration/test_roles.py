"""Who may do what, tried out (CONST-001)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.postgres.migrate import migrate
from dewey_logs.query import Query
from dewey_logs.store.batch import Batch
from godot.entries.entry import Entry, IdSource, admit_json
from godot.errors import StoreUnavailable
from tests.postgres_servers import Database, Server

ENOUGH = 60
INSERT = (
    "INSERT INTO logs (id, component, level, message, created_at) VALUES (gen_random_uuid(), 'c', 'INFO', '', now())"
)

ids = IdSource()


@pytest.fixture
def database(postgres: Server) -> Iterator[Database]:
    with Database(postgres) as database:
        yield database


def entry(entry_id: str | None = None) -> Entry:
    fields = {"component": "relay", "level": "INFO", "message": "x"}
    return admit_json({"id": entry_id or ids.next()} | fields, [])


def tries(database: Database, role: str, statement: str) -> str | None:
    """Do something as a role; return the SQLSTATE of what PostgreSQL says against it."""
    with closing(psycopg.connect(database.url, autocommit=True)) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        try:
            connection.execute(statement.encode())
        except psycopg.Error as exc:
            return exc.sqlstate
        return None


READ = ["SELECT * FROM logs", "SELECT count(*) FROM logs_default", "SELECT * FROM log_counts"]
WRITE = [
    "UPDATE logs SET message = 'x'", "DELETE FROM logs", "TRUNCATE logs", "DROP TABLE logs",
    "INSERT INTO log_counts VALUES (now(), 'c', 'INFO', 1)", "DELETE FROM log_counts", "DELETE FROM log_pins",
    "INSERT INTO logger_config (component, set_by) VALUES ('c', '')", "SELECT * FROM log_pins",
    "SELECT * FROM log_clears", "SELECT * FROM logger_config", "SELECT grant_log_roles()",
    "CREATE TABLE mine (a int)", "SELECT * FROM log_migrations",
]  # fmt: skip


def test_the_writer_inserts_and_may_do_nothing_else(database: Database) -> None:
    """CONST-001."""
    assert tries(database, "godot_log_writer", INSERT) is None
    assert database.value("SELECT sum(entries) FROM log_counts") == 1, "it is counted all the same"
    for statement in READ + WRITE:
        assert tries(database, "godot_log_writer", statement) == "42501", statement
    assert database.value("SELECT count(*) FROM logs") == 1


def test_the_reader_reads_and_may_do_nothing_else(database: Database) -> None:
    """CONST-001."""
    database.execute(INSERT)
    assert tries(database, "godot_log_reader", "SELECT * FROM logs") is None
    assert tries(database, "godot_log_reader", "SELECT * FROM log_counts") is None
    for statement in [INSERT, "SELECT log_known_ids('{}')", *WRITE]:
        assert tries(database, "godot_log_reader", statement) == "42501", statement


async def test_entries_are_stored_by_the_writer_role_into_every_partition(database: Database) -> None:
    """CONST-001: `DEWEY_DATABASE_ROLE`; also ids of others, for which it has to be known which there are."""
    with trio.fail_after(ENOUGH), closing(PostgresStore(database.url, role="godot_log_writer")) as store:
        await store.maintain(ahead_days=1, retention_days=7)
        foreign = entry(str(uuid4()))
        again = entry(foreign.id)
        assert (await store.store(Batch.of_entries([entry(), foreign]))).stored == 2
        assert (await store.store(Batch.of_entries([again, entry()]))).stored == 1
        assert len((await store.query(Query())).entries) == 3
        assert (await store.stats()).total == 3


async def test_a_role_that_is_not_there_says_so_and_loses_nothing(database: Database) -> None:
    with (
        trio.fail_after(ENOUGH),
        closing(PostgresStore(database.url, role="nobody_of_that_name")) as store,
        pytest.raises(StoreUnavailable, match=r"DEWEY_DATABASE_ROLE=nobody_of_that_name: role .* does not exist"),
    ):
        await store.store(Batch.of_entries([entry()]))


def test_an_owner_who_may_make_no_roles_can_migrate_and_grant_later(postgres: Server) -> None:
    name = f"owner_{uuid4().hex[:8]}"
    postgres.execute(f"CREATE ROLE {name} LOGIN")
    database_name = postgres.new_database()
    try:
        postgres.execute(f"ALTER DATABASE {database_name} OWNER TO {name}")
        postgres.execute(f"GRANT CREATE ON SCHEMA public TO {name}", database_name)
        url = postgres.url(database_name).replace("postgres@", f"{name}@")
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            migrate(connection)
            # The roles are there already, made by an administrator: granting is the owner's.
            connection.execute("SELECT grant_log_roles()")
            granted = connection.execute("SELECT has_table_privilege('godot_log_writer', 'logs', 'INSERT')").fetchall()
            assert granted == [(True,)]
            migrate(connection)
    finally:
        postgres.execute(f"DROP DATABASE {database_name} WITH (FORCE)")
        postgres.execute(f"DROP ROLE {name}")
