"""docs/reliability.md shows every row, as the suite has it; every row has a test."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.faults.rows import COVERED
from tests.faults.table import ELSEWHERE, PAGE, ROWS, SECTIONS, STEPS, page, static

HERE = Path(__file__).parent


def test_the_page_has_every_row_as_it_is() -> None:
    text = PAGE.read_text("utf-8")
    assert static(text) == static(page(text)), "run: python -m tests.faults.table"


def test_a_page_without_a_row_or_with_an_old_one_is_noticed() -> None:
    text = page(PAGE.read_text("utf-8"))
    lines = text.splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if line.startswith("| `"))
    row = lines[place]
    without = "".join([*lines[:place], *lines[place + 1 :]])
    changed = "".join([*lines[:place], row.replace("| ", "| once ", 1), *lines[place + 1 :]])
    measured = "".join([*lines[:place], row[: row.rindex("| ", 0, -4)] + "| something else |\n", *lines[place + 1 :]])
    assert static(without) != static(page(without))
    assert static(changed) != static(page(changed))
    assert static(measured) == static(page(measured))


def test_every_row_is_covered_by_a_test() -> None:
    for path in HERE.glob("test_*.py"):
        importlib.import_module(f"tests.faults.{path.stem}")
    covered = set(COVERED) | {row.id for row in STEPS if not row.slow}
    assert covered == set(ROWS)
    assert len(ROWS) == sum(len(rows) for rows in SECTIONS.values()), "two rows have the same id"


def test_what_is_tested_elsewhere_is_there() -> None:
    root = HERE.parents[1]
    assert [where for where in ELSEWHERE.values() if not (root / where).exists()] == []
