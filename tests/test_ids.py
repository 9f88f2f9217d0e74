"""Ids of requests and jobs: nobody guesses one, and rows that are entered together lie together."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from app.ids import Ids


@pytest.mark.parametrize(("new_id", "form"), [(Ids().request, r"req_[0-9a-f]{32}"), (Ids().job, r"[0-9a-f]{32}")])
def test_ids_follow_one_another_in_time_and_differ_within_a_millisecond(new_id: Callable[[], str], form: str) -> None:
    ids = [new_id() for _ in range(10_000)]
    assert all(re.fullmatch(form, id) for id in ids)
    assert len({id[-20:] for id in ids}) == len(ids)
    before = ids[-1][:-20]
    time.sleep(0.002)
    assert new_id()[:-20] > before
