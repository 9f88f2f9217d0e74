"""What an offer always sends, and what a parameter brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.catalogue.load import CatalogueError, load_common, load_model
from app.errors import UnsupportedParameter
from app.params.engine import compile_plan
from app.types import Caller, EditRequest, Given, Plan

MODEL = """
id: m
name: M
creator: C
modes: [text-to-image]
offers:
  - provider: fal
    endpoint: x/y
    constants: {tier: fast, level: 3}
    params:
      prompt: {how: passthrough, type: string, along: {strength: 1, tier: slow}}
      cfg: {how: renamed, to: true_cfg, type: number, along: {negative: " "}}
"""


def plan(folder: Path, **given: object) -> Plan:
    (folder / "m.yaml").write_text(MODEL)
    model = load_model(folder / "m.yaml", load_common())
    params = {name: Given(name, value) for name, value in given.items()}
    request = EditRequest("req", "text-to-image", "m", params, Caller("key", "name"))
    return compile_plan(request, "m", model.offers[0])


def test_constants_are_in_every_call_and_win_over_what_comes_along(tmp_path: Path) -> None:
    calls = plan(tmp_path, prompt="night", n=2).calls
    assert [dict(call.payload) for call in calls] == [
        {"tier": "fast", "level": 3, "prompt": "night", "strength": 1}
    ] * 2


def test_what_comes_along_is_noted_and_gives_way_to_the_caller(tmp_path: Path) -> None:
    made = plan(tmp_path, cfg=3)
    assert made.calls[0].payload["negative"] == " "
    assert next(note for note in made.notes if note.name == "cfg").why == "sent with negative=' ', which it needs"
    assert plan(tmp_path, cfg=3, negative="blur").calls[0].payload["negative"] == "blur"


def test_a_caller_cannot_change_a_constant(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedParameter, match="'tier': it is fixed for this model"):
        plan(tmp_path, prompt="night", tier="slow")


def test_a_row_may_not_write_a_constant(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MODEL.replace("tier: fast", "true_cfg: 1"))
    with pytest.raises(CatalogueError, match="row cfg: writes true_cfg, which is among constants"):
        load_model(tmp_path / "m.yaml", load_common())
