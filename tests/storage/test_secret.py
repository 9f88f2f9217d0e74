"""The secret's file: made once, complete, and only for us."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from app.storage.secret import load_or_create_secret
from tests.storage.test_local import files


def test_a_secret_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    secret = load_or_create_secret(path)
    assert len(secret) == 32
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(tmp_path) == [path]


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    async def run() -> set[bytes]:
        path = tmp_path / "secret"
        return set(await asyncio.gather(*(asyncio.to_thread(load_or_create_secret, path) for _ in range(16))))

    assert len(asyncio.run(run())) == 1
    assert files(tmp_path) == [tmp_path / "secret"]


def test_a_secret_can_be_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    secret = load_or_create_secret(tmp_path / "secret")
    assert load_or_create_secret(tmp_path / "secret") == secret
    assert files(tmp_path) == [tmp_path / "secret"]


@pytest.mark.parametrize("content", ["", "not hexadecimal", "abcd", "ä" * 64])
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="secret"):
        load_or_create_secret(path)
    assert path.read_text("utf-8") == content  # never replaced: it would break every URL that is out
