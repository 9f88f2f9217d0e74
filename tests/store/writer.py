"""A process to be killed: `python -m tests.store.writer FILE` writes numbers, and says which ones are safe.

A line on standard output is a number whose transaction has returned.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from app.store.sqlite import SqliteDatabase


async def main(path: Path) -> None:
    database = SqliteDatabase(path)
    await database.open()

    async def write() -> None:
        while True:
            (((number,),), _) = await database.run(
                ("INSERT INTO numbers (half) VALUES (1) RETURNING number", ()),
                ("UPDATE books SET total = total + 1", ()),
            )
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write() for _ in range(4)))


asyncio.run(main(Path(sys.argv[1])))
