"""The table of docs/reliability.md, from the rows and from what the suite has measured when it last ran.

python -m tests.faults.table
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults import rows_life, rows_money, rows_shared, rows_state, steps_after, steps_before
from tests.faults.observe import observed
from tests.faults.rows import Row, Step

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table: python -m tests.faults.table -->", "<!-- end of table -->"

SECTIONS: dict[str, tuple[Row, ...]] = {
    "Submitting a job": steps_before.SUBMIT,
    "What becomes of a job": steps_before.JOBS,
    "Uploading a picture": steps_before.UPLOADS,
    "Asking how a job is": steps_after.STATUS,
    "Fetching its result": steps_after.RESULT,
    "Downloading its picture": steps_after.CDN,
    "Clients that repeat": rows_money.REPEATS,
    "Idempotency-Key": rows_money.IDEMPOTENCY,
    "Submits whose reply was lost": rows_money.AMBIGUOUS,
    "Some of n fail": rows_state.PARTIAL,
    "Clients that leave": rows_life.LEAVING,
    "Deadlines": rows_life.DEADLINES,
    "A provider that is ill": rows_state.HEALTH,
    "Too much at once": rows_state.PRESSURE,
    "Disk and database": rows_state.STATE,
    "Several gateways on one PostgreSQL": rows_shared.GATEWAYS,
    "PostgreSQL that is held up": rows_shared.POSTGRES,
    "Redis": rows_shared.REDIS,
    "API keys": rows_shared.KEYS,
    "SIGTERM": rows_life.STOPPING,
    "SIGKILL": rows_life.KILLS,
}
ROWS: dict[str, Row] = {row.id: row for rows in SECTIONS.values() for row in rows}
STEPS = [row for row in ROWS.values() if isinstance(row, Step)]

ELSEWHERE = {
    "D8: the wall clock jumps": "tests/gateway",
    "U4: the breaker's arithmetic": "tests/gateway/test_breaker.py",
    "U3: two hundred jobs on a broken provider": "tests/providers/test_storms.py",
    "Q5: turns between callers": "tests/gateway/test_admission.py",
    "S1-S5: addresses and redirects, one by one": "tests/media/test_netguard.py",
    "D2-D5: both databases, statement by statement": "tests/store",
    "A4: heads that never end": "tests/api/test_connections.py",
}
"""What needs no process to be seen, and where it is tested."""


def main() -> None:
    """Write the page."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(page(text), "utf-8")


def page(text: str) -> str:
    """The page with its table made anew. What was not measured here keeps the numbers that it has."""
    before = {cells[0].strip("` "): cells[-1] for cells in map(_cells, text.splitlines()) if len(cells) == 6}
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{_tables(before)}{END}{rest.partition(END)[2]}"


def static(text: str) -> str:
    """The page without what was measured."""
    return re.sub(r"^(\| `.*\| )[^|]* \|$", r"\1|", text, flags=re.MULTILINE)


def _tables(before: dict[str, str]) -> str:
    lines = []
    for title, rows in SECTIONS.items():
        lines += ["", f"### {title}", ""]
        if any(isinstance(row, Step) for row in rows):
            lines += ["One edit by the OpenAI SDK as it comes, which repeats twice by itself and sends no key.", ""]
        lines += ["| | fault | what is done | expected | in numbers | observed |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [_line(row, before.get(row.id, "not yet")) for row in rows]
    lines += ["", "### Tested elsewhere", "", "| fault | where |", "|---|---|"]
    lines += [f"| {fault} | `{where}` |" for fault, where in ELSEWHERE.items()]
    return "\n".join([*lines, ""])


def _line(row: Row, before: str) -> str:
    seen = observed(row.id)
    last = before if seen is None else _cell(seen[0])
    expected = f"{row.expected} **Not yet: {row.bug}.**" if row.bug else row.expected
    cells = (f"`{row.id}`", row.fault, row.done, expected, row.told(row.numbers))
    return f"| {' | '.join(map(_cell, cells))} | {last} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("| `") else []


if __name__ == "__main__":
    main()
