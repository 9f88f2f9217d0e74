"""Who can be asked how it stands: what `gauges` reads when Prometheus does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.admission import Admission
from app.board import Board
from app.breaker import Breakers
from app.budgets import Memory
from app.catalogue.load import Catalogue
from app.jobs import Journal
from app.logbook import Logbook
from app.media.pool import MediaPool
from app.runs import Runs
from app.storage.base import Storage
from app.store.db import Database
from app.visits import Visits


@dataclass(frozen=True, slots=True)
class Sources:
    """All of them."""

    catalogue: Callable[[], Catalogue]
    visits: Visits
    runs: Runs
    admission: Admission
    breakers: Breakers
    memory: Memory
    pool: MediaPool
    journal: Journal
    database: Database
    logbook: Logbook
    storage: Storage
    board: Board | None
