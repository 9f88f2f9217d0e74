"""PostgreSQL: for several gateways at once.

A pool of our own, because what matters here is how it fails. asyncpg's, when time is up, sends the server a cancel
request and waits for it, also on a server that does not answer; and it goes on handing out connections that died
together with one that was lost. Here a transaction that takes too long has its connection cut, and after any loss all
idle connections go with it: the next caller sees at once whether the server is back.

Through PgBouncer it needs session pooling, and `ignore_startup_parameters` for the settings of a connection. How
durable a commit is, is for the server to say (`synchronous_commit`, which it should leave on).
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import asyncpg

from app.store.db import FORMS, Row, Statement, StoreError, StoreRefusal, StoreUnusable
from app.store.migrations import RECORD, VERSION, VERSIONS, pending
from app.store.turns import Turns

MOST_CONNECTIONS = 8
REPORTS = 2  # of the connections, at once, for what takes long
# A client is told within two seconds that nothing can be bought at the moment. Both count from the server's last answer
# to anybody: a queue that moves is no outage.
ACQUIRE_SECONDS = 1.5  # for a connection to be free, or made
COMMAND_SECONDS = 1.8  # a transaction, that included
QUEUE_SECONDS = 5.0  # for a connection to be free, however fast the others are served
TURN_SECONDS = 15.0  # behind others with the same API key that has a budget
REPORT_SECONDS = 15.0  # the same of what nobody waits for who wants to buy
CONNECT_SECONDS = 3.0  # at the start
CLOSE_SECONDS = 1.0
MIGRATE_SECONDS = 300.0
IDLE_SECONDS = 300.0  # firewalls forget a connection that is silent for longer
_TRIES = 3
_LOCK = 0x696D616765  # "image": of the advisory lock under which one process at a time makes tables
# All that asyncpg is known to raise.
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
# The transaction was rolled back through no fault of its own: deadlocks, and tables that have just been altered.
_AGAIN = (
    asyncpg.exceptions.SerializationError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.InvalidCachedStatementError,
)
# SQLSTATE classes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_REFUSED = ("22", "23", "42", "54")  # a bad value, a constraint, wrong SQL or no permission, too long for an index
_UNUSABLE = {
    "28": "the user or the password is wrong",
    "3D": "there is no such database",
    "42": "the user may not make tables in it",
}

Result = TypeVar("Result")
_Work = Callable[[asyncpg.Connection], Awaitable[list[list[Row]]]]


class PostgresDatabase:
    """A `Database` on a server."""

    label = "PostgreSQL"
    clock: str | None = "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
    ahead = 0.0
    holding = " FOR SHARE"

    def __init__(
        self,
        url: str,
        *,
        most_connections: int = MOST_CONNECTIONS,
        acquire_seconds: float = ACQUIRE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        command_seconds: float = COMMAND_SECONDS,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._url = url
        self._acquire_seconds = acquire_seconds
        self._connect_seconds = connect_seconds
        self._command_seconds = command_seconds
        self._report_seconds = report_seconds
        self._settings = {
            "application_name": "imagegate",
            "default_transaction_isolation": "read committed",
            # Of a process that hangs in a transaction, so that it blocks no other.
            "idle_in_transaction_session_timeout": "10000",
            **{name: str(milliseconds) for name, milliseconds in _timeouts(command_seconds).items()},
        }
        self._turns = Turns(TURN_SECONDS)
        self._slots = asyncio.Semaphore(most_connections)
        self._reports = asyncio.Semaphore(REPORTS)
        self._idle: list[tuple[asyncpg.Connection, float]] = []  # and since when; the last is taken first
        self._tasks: set[asyncio.Task[list[list[Row]]]] = set()
        self._answered = -math.inf  # when the server last did what it was asked, on the loop's clock
        self._is_open = False

    async def open(self) -> None:
        """See Database."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = await self._connect()
            try:
                await _within(MIGRATE_SECONDS, connection, _migrate)
            except BaseException:
                connection.terminate()
                raise
        except ValueError:  # its own words would repeat the URL, and the password with it
            raise StoreUnusable(f"the database URL is not well formed: it must be {FORMS}") from None
        except asyncpg.PostgresError as error:
            why = _UNUSABLE.get(str(error.sqlstate)[:2])
            if why is None:
                raise _failure(error) from None
            raise StoreUnusable(f"PostgreSQL refuses: {why} ({type(error).__name__})") from None
        except _TROUBLE as error:
            raise _failure(error) from None
        self._idle.append((connection, asyncio.get_running_loop().time()))
        self._is_open = True

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        """See Database."""
        work = partial(self._shielded, self._command_seconds, partial(_transaction, statements=statements))
        return await (work() if turn is None else self._turns.take(turn, work))

    async def tidy(self, *statements: Statement) -> list[list[Row]]:
        """See Database."""
        return await self._shielded(self._report_seconds, partial(_patient, self._report_seconds, statements))

    async def read(self, sql: str, *values: Any) -> list[Row]:
        """See Database."""
        (rows,) = await self.run((sql, values))
        return rows

    async def report(self, sql: str, *values: Any) -> list[Row]:
        """See Database."""
        async with self._reports:
            (rows,) = await self.tidy((sql, values))
            return rows

    async def close(self) -> None:
        """See Database."""
        self._is_open = False
        if self._tasks:
            await asyncio.wait(self._tasks)  # each has its time limit
        idle, self._idle = self._idle, []
        farewells = (connection.close(timeout=CLOSE_SECONDS) for connection, _ in idle)
        await asyncio.gather(*farewells, return_exceptions=True)  # what does not answer is cut

    def _done(self, task: asyncio.Task[list[list[Row]]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it may be that nobody waits for it any more

    async def _shielded(self, seconds: float, work: _Work) -> list[list[Row]]:
        """A caller that is cancelled takes nothing along."""
        if not self._is_open:
            raise StoreError("the database is not open")
        task = asyncio.create_task(self._run(seconds, work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _run(self, seconds: float, work: _Work) -> list[list[Row]]:
        began = asyncio.get_running_loop().time()
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._with_connection(work, began, seconds)
            except _TROUBLE as error:
                if not tries_left or not isinstance(error, _AGAIN):
                    raise _failure(error) from None
        raise AssertionError("the last try returns or raises")

    async def _with_connection(self, work: _Work, began: float, seconds: float) -> list[list[Row]]:
        clock = asyncio.get_running_loop().time
        await self._turn(began)
        try:
            async with asyncio.timeout_at(max(began, self._answered) + self._acquire_seconds):
                connection = self._take_idle() or await self._connect()
        except BaseException:
            self._slots.release()
            raise
        try:
            found = await _within(max(max(began, self._answered) + seconds - clock(), 0), connection, work)
            self._answered = clock()
            return found
        except asyncpg.exceptions.ReadOnlySQLTransactionError:  # it has become a standby: look for the primary
            connection.terminate()
            raise
        finally:
            if connection.is_closed():
                self._drop_idle()
            else:
                self._idle.append((connection, asyncio.get_running_loop().time()))
            self._slots.release()

    async def _turn(self, began: float) -> None:
        """A connection may be used. Raises TimeoutError."""
        if not self._slots.locked():
            await self._slots.acquire()
            return
        clock = asyncio.get_running_loop().time
        turn = asyncio.ensure_future(self._slots.acquire())
        try:
            while not turn.done():
                left = min(max(began, self._answered) + self._acquire_seconds, began + QUEUE_SECONDS) - clock()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait({turn}, timeout=left)
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._slots.release()
            raise
        turn.result()

    def _take_idle(self) -> asyncpg.Connection | None:
        fresh = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection, since = self._idle.pop()
            if since > fresh and not connection.is_closed():
                return connection
            connection.terminate()
        return None

    def _drop_idle(self) -> None:
        """One was lost, so the others may be dead without knowing it: each would cost its user a time-out."""
        while self._idle:
            self._idle.pop()[0].terminate()

    async def _connect(self) -> asyncpg.Connection:
        # Of several hosts in the URL, the one that can be written to.
        return await asyncpg.connect(self._url, server_settings=self._settings, target_session_attrs="read-write")


def _timeouts(seconds: float) -> dict[str, int]:
    """What a server is told, in milliseconds. A little less than we wait ourselves: one that is only slow says so, and
    keeps its connection."""
    return {"lock_timeout": int(seconds * 800), "statement_timeout": int(seconds * 900)}


async def _within(
    seconds: float, connection: asyncpg.Connection, work: Callable[[asyncpg.Connection], Awaitable[Result]]
) -> Result:
    """`work` on a connection, which is cut when the time is over. Raises TimeoutError, and what asyncpg raises."""
    is_late = False

    def cut() -> None:
        nonlocal is_late
        is_late = True
        connection.terminate()

    alarm = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        return await work(connection)
    except Exception as error:
        if is_late:  # whatever asyncpg stumbled over
            raise TimeoutError from error
        raise
    except BaseException:
        connection.terminate()
        raise
    finally:
        alarm.cancel()


async def _transaction(connection: asyncpg.Connection, statements: Sequence[Statement]) -> list[list[Row]]:
    if len(statements) == 1:  # is a transaction by itself: two journeys less
        return [await _rows(connection, *statements[0])]
    async with connection.transaction():
        return [await _rows(connection, *statement) for statement in statements]


async def _patient(seconds: float, statements: Sequence[Statement], connection: asyncpg.Connection) -> list[list[Row]]:
    """A transaction that may take longer than others."""
    async with connection.transaction():
        await connection.execute("; ".join(f"SET LOCAL {name} = {ms}" for name, ms in _timeouts(seconds).items()))
        return [await _rows(connection, *statement) for statement in statements]


async def _rows(connection: asyncpg.Connection, sql: str, values: tuple[Any, ...]) -> list[Row]:
    return [tuple(record) for record in await connection.fetch(sql, *values)]


async def _migrate(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(VERSIONS)
        for number, statements in pending(await connection.fetchval(VERSION)):
            for statement in statements:
                await connection.execute(statement)
            await connection.execute(RECORD, number)


def _failure(error: Exception) -> StoreError:
    """What a failure means. Never in the server's or the driver's own words: they repeat values and addresses."""
    name = type(error).__name__
    if isinstance(error, TimeoutError):
        return StoreError("PostgreSQL does not answer in time")
    if isinstance(error, socket.gaierror):
        return StoreError("PostgreSQL cannot be reached: nobody knows the host that the URL names")
    if isinstance(error, OSError):
        return StoreError(f"PostgreSQL cannot be reached: {os.strerror(error.errno) if error.errno else name}")
    if isinstance(error, asyncpg.PostgresError):
        if str(error.sqlstate)[:2] in _REFUSED:
            return StoreRefusal(f"PostgreSQL refused it: {name} ({error.sqlstate})")
        name = f"{name} ({error.sqlstate})"
    return StoreError(f"PostgreSQL: {name}")
