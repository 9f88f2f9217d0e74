"""PostgreSQL when it is down, killed, frozen, slow, busy or strict."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from app.store.db import StoreError, StoreRefusal, StoreUnusable
from app.store.postgres import PostgresDatabase
from tests.fakes.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.anyio

THING = "INSERT INTO things (id) VALUES ($1)"
COUNT = "SELECT count(*) FROM things"
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'imagegate'"

Open = Callable[..., Any]


@pytest.fixture
async def url(postgres: PostgresServer) -> str:
    """An empty database's."""
    return await postgres.new_database()


@pytest.fixture
async def open_one(url: str) -> AsyncIterator[Open]:
    """open_one(command_seconds=…) -> the database, with one table more; closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(url: str = url, **settings: Any) -> PostgresDatabase:
            database = PostgresDatabase(url, **settings)
            await database.open()
            stack.push_async_callback(database.close)
            await database.run(("CREATE TABLE IF NOT EXISTS things (id BIGINT PRIMARY KEY, word TEXT)", ()))
            return database

        yield opened


async def until_it_works(database: PostgresDatabase) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await database.read(COUNT)
            except StoreError:
                await asyncio.sleep(0.02)
            else:
                return


async def fails(database: PostgresDatabase, sql: str = COUNT, *values: Any) -> str:
    with pytest.raises(StoreError) as failed:
        await database.run((sql, values))
    assert not isinstance(failed.value, StoreRefusal)
    assert PASSWORD not in str(failed.value)
    assert "things" not in str(failed.value)
    return str(failed.value)


class TestOutages:
    @pytest.mark.parametrize("end", ["stop", "kill"])
    async def test_a_server_that_is_down_fails_at_once_and_is_used_again_when_it_is_back(
        self, postgres: PostgresServer, open_one: Open, end: str
    ) -> None:
        database = await open_one()
        await asyncio.gather(*(database.run((THING, (number,))) for number in range(50)))
        getattr(postgres, end)()
        async with asyncio.timeout(2):
            answers = await asyncio.gather(
                *(database.run((THING, (number,))) for number in range(50, 90)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {StoreError}
            assert await fails(database) == "PostgreSQL cannot be reached: Connection refused"
        postgres.start()
        await until_it_works(database)
        assert await database.read(COUNT) == [(50,)]

    async def test_what_was_acknowledged_outlives_a_killed_server(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one()
        safe = set()

        async def write(first: int) -> None:
            for number in range(first, first + 100_000):
                try:
                    await database.run((THING, (number,)), ("SELECT 1", ()))
                except StoreError:
                    return
                safe.add(number)

        writers = [asyncio.create_task(write(first * 100_000)) for first in range(4)]
        while len(safe) < 50:
            await asyncio.sleep(0.01)
        postgres.kill()
        await asyncio.gather(*writers)
        postgres.start()
        await until_it_works(database)
        assert safe <= {id for (id,) in await database.read("SELECT id FROM things")}

    async def test_a_server_that_does_not_answer_is_given_up_and_nobody_else_waits(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one(command_seconds=0.5, acquire_seconds=0.3, most_connections=4)
        await asyncio.gather(*(database.run((THING, (number,))) for number in range(20)))
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        postgres.pause()
        async with asyncio.timeout(4):
            answers = await asyncio.gather(*(database.run((COUNT, ())) for _ in range(40)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreError}
            assert await fails(database) == "PostgreSQL does not answer in time"
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        assert ticks >= 10
        postgres.resume()
        await until_it_works(database)
        await database.run((THING, (100,)))

    async def test_connections_that_died_with_a_lost_one_are_not_handed_out(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one(command_seconds=2, acquire_seconds=5)
        await asyncio.gather(*(database.run(("SELECT pg_sleep(0.1)", ())) for _ in range(6)))
        before = await database.read("SELECT pid FROM pg_stat_activity WHERE application_name = 'imagegate'")
        assert len(before) == 6
        postgres.pause()
        await fails(database)
        postgres.resume()
        await database.read(COUNT)  # on none of the five that the pause may have cost
        async with asyncio.timeout(5):
            while await postgres.execute(OURS) != [(1,)]:
                await asyncio.sleep(0.02)

    async def test_it_can_be_closed_while_the_server_does_not_answer(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one(command_seconds=0.5)
        await asyncio.gather(*(database.run(("SELECT pg_sleep(0.05)", ())) for _ in range(4)))
        postgres.pause()
        left = asyncio.create_task(database.run((THING, (1,))))
        await asyncio.sleep(0)
        async with asyncio.timeout(4):
            await database.close()
        assert isinstance((await asyncio.gather(left, return_exceptions=True))[0], StoreError)

    async def test_connections_that_an_administrator_ends_are_replaced(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one()
        await postgres.execute(OURS.replace("count(*)", "pg_terminate_backend(pid)"))
        await until_it_works(database)

    async def test_a_primary_that_became_a_standby_is_left(self, postgres: PostgresServer, open_one: Open) -> None:
        database = await open_one()
        answers: list[str] = []
        try:
            await postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await postgres.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(5):
                for number in itertools.count():
                    if len(answers) == 2:
                        break
                    try:
                        await database.run((THING, (number,)))
                    except StoreError as error:
                        answers.append(str(error))
        finally:
            await postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await postgres.execute("SELECT pg_reload_conf()")
        assert "ReadOnlySQLTransactionError" in answers[0]
        assert "TargetServerAttributeNotMatched" in answers[1]  # it has looked for a server that can be written to
        await until_it_works(database)

    async def test_a_server_that_is_down_at_the_start_may_be_up_later(self, postgres: PostgresServer, url: str) -> None:
        database = PostgresDatabase(url)
        postgres.stop()
        with pytest.raises(StoreError, match="cannot be reached"):
            await database.open()
        postgres.start()
        await database.open()
        await database.close()

    async def test_a_host_whose_name_nobody_knows_is_said_to_be_that(self) -> None:
        with pytest.raises(StoreError, match="nobody knows the host that the URL names"):
            await PostgresDatabase("postgresql://u:p@nowhere.invalid/imagegate").open()


class TestLimits:
    async def test_there_are_never_more_connections_than_allowed(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one(most_connections=3)
        counts = [f"{OURS} AND pg_sleep(0.01) IS NOT NULL"] * 30
        answers = await asyncio.gather(*(database.read(sql) for sql in counts))
        assert max(count for ((count,),) in answers) <= 3

    async def test_who_finds_no_free_connection_in_time_is_told_so(self, open_one: Open) -> None:
        database = await open_one(most_connections=1, acquire_seconds=0.1)
        busy = asyncio.create_task(database.run(("SELECT pg_sleep(0.4)", ())))
        await asyncio.sleep(0.05)
        await fails(database)
        await busy
        await database.read(COUNT)

    async def test_a_statement_that_takes_too_long_is_ended_on_the_server_too(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one(command_seconds=2)
        before = await database.read("SELECT pg_backend_pid()")
        assert "QueryCanceled" in await fails(database, "SELECT pg_sleep(30)")
        assert await database.read("SELECT pg_backend_pid()") == before
        assert await postgres.execute(OURS + " AND query LIKE '%sleep(30)%' AND state = 'active'") == [(0,)]

    async def test_what_nobody_waits_for_who_buys_may_take_longer(self, open_one: Open) -> None:
        database = await open_one(command_seconds=0.5, report_seconds=20)
        assert await database.report("SELECT 1 FROM pg_sleep(0.8)") == [(1,)]
        assert await database.tidy((THING, (1,)), ("SELECT 1 FROM pg_sleep(0.8)", ())) == [[], [(1,)]]
        assert await database.read(COUNT) == [(1,)]
        assert "QueryCanceled" in await fails(database, "SELECT pg_sleep(0.8)")

    async def test_a_crowd_that_would_wait_for_one_lock_leaves_connections_to_others(self, open_one: Open) -> None:
        database = await open_one(most_connections=2)
        crowd = [asyncio.create_task(database.run(("SELECT pg_sleep(0.1)", ()), turn="anna")) for _ in range(8)]
        await asyncio.sleep(0.05)
        assert await database.read(COUNT) == [(0,)]
        assert not any(one.done() for one in crowd[2:])
        await asyncio.gather(*crowd)

    async def test_a_wait_behind_what_was_in_vain_leaves_less_time_for_what_is_to_be_done(self, open_one: Open) -> None:
        database = await open_one(most_connections=1, acquire_seconds=5, command_seconds=1)
        busy = asyncio.create_task(fails(database, "SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        assert await fails(database, "SELECT pg_sleep(0.8)") == "PostgreSQL does not answer in time"
        assert "QueryCanceled" in await busy

    async def test_a_queue_that_moves_is_no_outage(self, open_one: Open) -> None:
        database = await open_one(most_connections=1, acquire_seconds=0.5, command_seconds=0.6)
        answers = await asyncio.gather(*(database.read("SELECT 1 FROM pg_sleep(0.1)") for _ in range(15)))
        assert answers == [[(1,)]] * 15

    async def test_a_transaction_that_takes_too_long_is_cut_and_leaves_nothing(self, open_one: Open) -> None:
        database = await open_one(command_seconds=0.5)
        slow = [("SELECT pg_sleep(0.2)", ())] * 4
        with pytest.raises(StoreError, match="in time"):
            await database.run((THING, (1,)), *slow)
        assert await database.read(COUNT) == [(0,)]

    async def test_a_lock_that_another_process_holds_is_not_waited_for_longer(self, url: str, open_one: Open) -> None:
        database = await open_one(command_seconds=2)
        await database.run((THING, (1,)))
        update = "UPDATE things SET word = 'a' WHERE id = 1"
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute(update)
            assert "LockNotAvailable" in await fails(database, update)
        await other.close()
        await database.run((update, ()))

    async def test_of_two_that_lock_each_other_out_both_succeed_in_the_end(self, url: str, open_one: Open) -> None:
        database = await open_one(url + "&deadlock_timeout=20ms")
        await database.run((THING, (1,)), (THING, (2,)))

        async def both(first: int, second: int) -> None:
            update = "UPDATE things SET word = coalesce(word, '') || 'x' WHERE id = $1"
            await database.run((update, (first,)), ("SELECT pg_sleep(0.1)", ()), (update, (second,)))

        await asyncio.gather(both(1, 2), both(2, 1))
        assert await database.read("SELECT word FROM things") == [("xx",), ("xx",)]

    async def test_a_session_that_hangs_in_a_transaction_will_be_ended(self, open_one: Open) -> None:
        database = await open_one()
        assert await database.read("SHOW idle_in_transaction_session_timeout") == [("10s",)]
        assert await database.read("SHOW lock_timeout") == [("1440ms",)]

    async def test_nothing_is_left_on_the_server_when_it_is_closed(
        self, postgres: PostgresServer, open_one: Open
    ) -> None:
        database = await open_one()
        await asyncio.gather(*(database.run((THING, (number,))) for number in range(20)))
        await database.close()
        async with asyncio.timeout(5):
            while await postgres.execute(OURS) != [(0,)]:
                await asyncio.sleep(0.01)


class TestStarting:
    async def test_a_unix_socket_will_do(self, postgres: PostgresServer, open_one: Open) -> None:
        database = await open_one(await postgres.new_database(over_socket=True))
        assert await database.read("SELECT 1") == [(1,)]

    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"password": "wr0ng"}, "the user or the password is wrong"),
            ({"database": "nowhere"}, "there is no such database"),
            ({"schema": "pg_catalog"}, "the user may not make tables in it"),
        ],
    )
    async def test_what_waiting_cannot_mend_stops_the_start(
        self, postgres: PostgresServer, settings: dict[str, str], why: str
    ) -> None:
        with pytest.raises(StoreUnusable, match=why) as refused:
            await PostgresDatabase(postgres.url(**settings)).open()
        for secret in (PASSWORD, "wr0ng"):
            assert secret not in str(refused.value)

    async def test_a_refused_start_leaves_no_connection(
        self, postgres: PostgresServer, url: str, open_one: Open
    ) -> None:
        database = await open_one()
        await database.run(("INSERT INTO schema_version (version) VALUES (99)", ()))
        with pytest.raises(StoreUnusable):
            await PostgresDatabase(url).open()
        await database.close()
        async with asyncio.timeout(20):
            while await postgres.execute(OURS) != [(0,)]:
                await asyncio.sleep(0.01)
