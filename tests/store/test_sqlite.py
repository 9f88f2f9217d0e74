"""SQLite when things go wrong: locks, full disks, damage, kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.store.db import StoreError, StoreRefusal, StoreUnusable
from app.store.sqlite import SqliteDatabase, native

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
THING = "INSERT INTO things (word) VALUES ($1)"
COUNT = "SELECT count(*) FROM things"
# A process that holds the lock from its "locked" until its standard input ends.
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""

Open = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "imagegate.db"


@pytest.fixture
async def open_at() -> AsyncIterator[Open]:
    """open_at(path, …) -> a database with one table more; closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(path: Path, **settings: Any) -> SqliteDatabase:
            database = SqliteDatabase(path, **settings)
            await database.open()
            stack.push_async_callback(database.close)
            await database.run(("CREATE TABLE IF NOT EXISTS things (word TEXT)", ()))
            return database

        yield opened


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the database's lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()  # which closes its standard input


class TestGroupCommit:
    async def test_what_waits_goes_into_one_commit(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        before = database.commits
        await asyncio.gather(*(database.run((THING, (str(number),))) for number in range(500)))
        assert await database.read(COUNT) == [(500,)]
        assert database.commits - before < 50

    async def test_its_parts_are_done_in_the_order_in_which_they_came(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        await asyncio.gather(*(database.run((THING, (f"{number:03}",))) for number in range(200)))
        rows = await database.read("SELECT word FROM things ORDER BY rowid")
        assert [word for (word,) in rows] == [f"{number:03}" for number in range(200)]

    async def test_who_has_an_answer_can_read_what_he_wrote(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)

        async def write_and_read(word: str) -> None:
            await database.run((THING, (word,)))
            assert await database.read("SELECT count(*) FROM things WHERE word = $1", word) == [(1,)]

        await asyncio.gather(*(write_and_read(str(number)) for number in range(100)))


class TestLocks:
    async def test_a_lock_that_lasts_stops_writers_and_nobody_else(self, path: Path, open_at: Open) -> None:
        database = await open_at(path, busy_seconds=0.4)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        with locked(path):
            ticks = 0
            writes = [asyncio.create_task(database.run((THING, ("a",)))) for _ in range(20)]
            await asyncio.sleep(0.05)
            assert await database.read(COUNT) == [(0,)]
            assert not any(write.done() for write in writes)
            for write in writes:
                with pytest.raises(StoreError, match="locked") as failed:
                    await write
                assert not isinstance(failed.value, StoreRefusal)
            assert ticks >= 10
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        await database.run((THING, ("b",)))
        assert await database.read("SELECT word FROM things") == [("b",)]

    async def test_who_queues_up_behind_a_lock_does_not_wait_for_it_again(self, path: Path, open_at: Open) -> None:
        database = await open_at(path, busy_seconds=1)
        with locked(path):
            first = asyncio.create_task(database.run((THING, ("a",))))
            await asyncio.sleep(0.1)  # the thread has taken it
            second = asyncio.create_task(database.run((THING, ("b",))))
            done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {first, second}
            for one in done:
                assert isinstance(one.exception(), StoreError)

    async def test_a_lock_that_goes_in_time_is_waited_for(self, path: Path, open_at: Open) -> None:
        database = await open_at(path, busy_seconds=20)
        with locked(path):
            write = asyncio.create_task(database.run((THING, ("a",))))
            await asyncio.sleep(0.1)
            assert not write.done()
        await write

    async def test_too_many_who_wait_are_sent_away_at_once(self, path: Path, open_at: Open) -> None:
        database = await open_at(path, busy_seconds=20, capacity=3)
        with locked(path):
            writes = [asyncio.create_task(database.run((THING, ("a",)))) for _ in range(20)]
            await asyncio.sleep(0.1)
            full = [write for write in writes if write.done()]
            assert 3 <= 20 - len(full) <= 6  # those that wait, and as many that the thread may have taken
            for write in full:
                assert "too much" in str(write.exception())
        await asyncio.gather(*writes, return_exceptions=True)
        assert await database.read(COUNT) == [(20 - len(full),)]

    async def test_a_start_under_a_lock_does_not_fail_if_there_is_nothing_to_write(
        self, path: Path, open_at: Open
    ) -> None:
        await open_at(path)
        with locked(path):
            database = SqliteDatabase(path, busy_seconds=0.1)
            await database.open()
            await database.close()

    async def test_a_process_can_end_while_its_writer_hangs(self, path: Path, open_at: Open) -> None:
        code = """
import asyncio, sys
from pathlib import Path
from app.store.sqlite import SqliteDatabase

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), busy_seconds=60)
    await database.open()
    waiting = asyncio.create_task(database.run(("INSERT INTO things VALUES ('a')", ())))
    await asyncio.sleep(0.1)

asyncio.run(main())
"""
        await open_at(path)
        with locked(path):
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=20
            )
        assert (done.returncode, done.stderr) == (0, "")


class TestDisks:
    async def test_a_full_database_fails_writes_until_there_is_room(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        ((pages,),) = await database.read("PRAGMA page_count")
        await database.run((f"PRAGMA max_page_count = {pages + 5}", ()))
        big = database.run((THING, ("x" * 100_000,)))
        small = database.run((THING, ("small",)))
        answers = await asyncio.gather(big, small, return_exceptions=True)
        assert type(answers[0]) is StoreError
        assert "full" in str(answers[0])
        assert answers[1] == [[]]
        assert await database.read("SELECT word FROM things") == [("small",)]
        await database.run(("PRAGMA max_page_count = 100000", ()))
        await database.run((THING, ("x" * 100_000,)))

    async def test_a_full_disk_fails_writes_until_there_is_room(self, tmp_path: Path, open_at: Open) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            pytest.skip("only root may make a small disk")
        try:
            database = await open_at(disk / "imagegate.db")
            rubbish = disk / "rubbish"
            with contextlib.suppress(OSError), rubbish.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            for _ in range(3):
                with pytest.raises(StoreError, match=r"full|disk") as failed:
                    await database.run((THING, ("x" * 100_000,)))
                assert not isinstance(failed.value, StoreRefusal)
                assert await database.read(COUNT) == [(0,)]
            with pytest.raises(StoreError):
                await SqliteDatabase(disk / "other.db").open()
            rubbish.unlink()
            await database.run((THING, ("x" * 100_000,)))
            assert await database.read(COUNT) == [(1,)]
            await database.close()
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)

    async def test_a_disk_that_fails_is_used_again_when_it_works(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        await database.run((THING, ("before",)))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # beyond it, writing is an I/O error
        try:
            for _ in range(3):
                with pytest.raises(StoreError, match="I/O") as failed:
                    await database.run((THING, ("x" * 500_000,)))
                assert not isinstance(failed.value, StoreRefusal)
                assert await database.read("SELECT word FROM things") == [("before",)]
            await database.run((THING, ("small",)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await database.run((THING, ("x" * 500_000,)))
        assert await database.read(COUNT) == [(3,)]

    async def test_a_file_that_is_taken_away_is_missed_and_not_made_anew(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        away = path.with_name("away.db")
        path.rename(away)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"imagegate\.db was taken away"):
                await database.run((THING, ("lost",)))
            with pytest.raises(StoreError, match="taken away"):
                await database.read(COUNT)
        assert not path.exists()
        away.rename(path)
        await database.run((THING, ("kept",)))
        assert await database.read("SELECT word FROM things") == [("kept",)]


class TestStarting:
    async def test_the_file_is_for_its_owner_alone(self, path: Path, open_at: Open) -> None:
        await open_at(path)
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.glob("imagegate.db*")}
        assert path.name in modes
        assert set(modes.values()) == {0o600}

    async def test_commits_wait_for_the_disk(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        for pragma, value in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            assert await database.run((f"PRAGMA {pragma}", ())) == [[(value,)]]

    async def test_a_closed_database_is_one_file(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        await database.run((THING, ("a",)))
        await database.close()
        assert [one.name for one in path.parent.iterdir()] == ["imagegate.db"]

    async def test_an_empty_file_is_a_new_database(self, path: Path, open_at: Open) -> None:
        path.touch()
        await open_at(path)

    @pytest.mark.parametrize("damage", ["noise", "text", "header", "page", "cut", "other"])
    async def test_a_damaged_file_stops_the_start_and_stays_as_it_is(
        self, path: Path, open_at: Open, damage: str
    ) -> None:
        database = await open_at(path)
        await asyncio.gather(*(database.run((THING, (f"{number}" * 500,))) for number in range(500)))
        await database.close()
        content = path.read_bytes()
        pages = random.Random(1).randbytes
        damaged = {
            "noise": pages(len(content)),
            "text": b"id,name\n" * 1000,
            "header": pages(4096) + content[4096:],
            "page": content[:40960] + pages(40960) + content[81920:],
            "cut": content[: len(content) // 2],
            "other": content[:4096] * 20,
        }[damage]
        path.write_bytes(damaged)
        with pytest.raises(StoreUnusable) as refused:
            await SqliteDatabase(path).open()
        assert str(path) in str(refused.value)
        assert "damaged" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert path.read_bytes() == damaged

    async def test_a_place_where_no_file_can_be_stops_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        for path in (tmp_path / "folder", tmp_path / "file" / "imagegate.db"):
            with pytest.raises(StoreUnusable, match=str(path)):
                await SqliteDatabase(path).open()

    async def test_a_copy_can_be_made_while_it_runs_and_restored(self, path: Path, open_at: Open) -> None:
        database = await open_at(path)
        await database.run((THING, ("kept",)))
        copy = path.with_name("copy.db")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        await database.run((THING, ("lost",)))
        await database.close()
        shutil.copy(copy, path)
        database = await open_at(path)
        assert await database.read("SELECT word FROM things") == [("kept",)]


def test_what_was_acknowledged_outlives_kill_9(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE numbers (number INTEGER PRIMARY KEY AUTOINCREMENT, half BIGINT);"
            "CREATE TABLE books (total BIGINT); INSERT INTO books VALUES (0);"
        )
    command = [sys.executable, "-m", "tests.store.writer", str(path)]
    chance = random.Random(9)
    safe: set[int] = set()
    for _ in range(5):
        children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
        for child in children:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 30)):
                safe.add(int(child.stdout.readline()))
            child.kill()
        for child in children:
            output, _ = child.communicate()
            safe.update(int(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n"))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            written = {number for (number,) in connection.execute("SELECT number FROM numbers")}
            assert connection.execute("SELECT total FROM books").fetchone() == (len(written),)
        assert safe <= written


@pytest.mark.parametrize(
    ("sql", "spelled"),
    [
        ("SELECT $1, $12 WHERE a=$2", "SELECT ?1, ?12 WHERE a=?2"),
        ("SELECT '$1', 'it''s $2', \"a$3\", $4", "SELECT '$1', 'it''s $2', \"a$3\", ?4"),
        ("SELECT $1 -- costs $5\n, $2 /* $3\n$4 */ + $5", "SELECT ?1 -- costs $5\n, ?2 /* $3\n$4 */ + ?5"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_placeholders_are_translated_where_they_are_placeholders(sql: str, spelled: str) -> None:
    assert native(sql) == spelled
