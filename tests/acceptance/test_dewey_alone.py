"""`dewey serve` with no Godot beside it: partitions and retention are its own."""

from __future__ import annotations

import pytest
import trio

from tests.postgres_servers import Database, Server
from tests.programs import ENOUGH, Workplace


@pytest.mark.parametrize(("setting", "partitions"), [({}, 9), ({"DEWEY_PARTITIONS_AHEAD": 2}, 4)])
async def test_dewey_alone_makes_the_partitions_of_the_days_to_come(
    postgres: Server, place: Workplace, setting: dict[str, int], partitions: int
) -> None:
    """DEW-005: from yesterday to a week ahead, at its start."""
    with Database(postgres, template="template1") as database:
        with trio.fail_after(ENOUGH):
            dewey = place.start("dewey", "serve", "--port", 0, DATABASE_URL=database.url, **setting)
            await dewey.ready()
            made = await dewey.event("partitions")
            assert (made["created"], made["moved"]) == (str(partitions), "0")
            await dewey.stop()
        children = "SELECT count(*) - 1 FROM pg_inherits WHERE inhparent = 'logs'::regclass"
        assert database.value(children) == partitions


async def test_dewey_alone_makes_none_where_it_was_told_not_to(postgres: Server, place: Workplace) -> None:
    with Database(postgres, template="template1") as database:
        with trio.fail_after(ENOUGH):
            dewey = place.start("dewey", "serve", "--port", 0, DATABASE_URL=database.url, LOG_PARTITION_ENABLED="false")
            await dewey.ready()
            await dewey.stop()
        assert database.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass") == 1


async def test_many_old_days_are_held_back_for_an_hour_and_dewey_says_so(postgres: Server, place: Workplace) -> None:
    """DEW-009: a clock may be wrong."""
    with Database(postgres) as database, trio.fail_after(ENOUGH):
        database.execute(
            "INSERT INTO logs (id, component, level, message, created_at) SELECT gen_random_uuid(), 'old', 'INFO', "
            "'', now() - n * interval '1 day' FROM generate_series(20, 22) AS n"
        )
        dewey = place.start("dewey", "serve", "--port", 0, DATABASE_URL=database.url)
        held = await dewey.event("retention_held")
        assert held["days"] == "3"
        assert "put it right within an hour" in held["reason"]
        await dewey.ready()
        await dewey.stop()
        assert database.value("SELECT count(*) FROM logs") == 3
