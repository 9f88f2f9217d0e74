"""What the suite has seen, kept for the page: one small file a row, so that several workers can write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.rows import Row

FOLDER = Path(__file__).parent / "observed"


class Case:
    """A row while its test runs."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def saw(self, numbers: Mapping[str, Any] | None = None, **more: Any) -> None:
        """These numbers were measured: kept for the page, and compared with the row's."""
        measured = {**(numbers or {}), **more}
        assert set(measured) == set(self.row.numbers), "a row's numbers are all measured, and no others"
        measured = {name: measured[name] for name in self.row.numbers}
        wrong = {name: value for name, value in measured.items() if self.row.numbers[name] != value}
        self._keep(self.row.told(measured), not wrong)
        told = ", ".join(f"{name} is {value}, not {self.row.numbers[name]}" for name, value in wrong.items())
        assert not wrong, f"{self.row.id}: {told}"

    def _keep(self, text: str, fine: bool) -> None:
        FOLDER.mkdir(exist_ok=True)
        draft = FOLDER / f".{self.row.id}.{os.getpid()}"
        draft.write_text(json.dumps({"observed": text, "fine": fine}, ensure_ascii=False) + "\n")
        draft.replace(FOLDER / f"{self.row.id}.json")


def observed(id: str) -> tuple[str, bool] | None:
    """What was last measured of a row, and whether it was as it should be."""
    try:
        kept = json.loads((FOLDER / f"{id}.json").read_text())
    except FileNotFoundError:
        return None
    return kept["observed"], kept["fine"]
