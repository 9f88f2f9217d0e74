"""Without a key the gateway serves this machine only, unless it is told otherwise in so many words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from app.children import Child
from tests.conftest import KEY

SERVE = ["serve", "--host", "0.0.0.0", "--port", "0"]  # the point of these tests; each ends at once


@pytest.mark.parametrize("arguments", [SERVE, ["serve", "--host", "::", "--port", "0"], ["serve", "--port", "0"]])
def test_it_does_not_start_open_on_an_address_that_others_can_reach(
    sandbox_environ: dict[str, str], tmp_path: Path, arguments: list[str]
) -> None:
    environ = {**sandbox_environ, "IMAGEGATE_DATA_DIR": str(tmp_path), "PATH": "/usr/bin"}
    if "--host" not in arguments:
        environ["IMAGEGATE_HOST"] = "0.0.0.0"
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments], env=environ, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("imagegate: host: ")
    assert "IMAGEGATE_API_KEY" in done.stderr
    assert "IMAGEGATE_ALLOW_OPEN" in done.stderr


@pytest.mark.parametrize("setting", [{"IMAGEGATE_ALLOW_OPEN": "true"}, {"IMAGEGATE_API_KEY": KEY}], ids=["open", "key"])
def test_it_starts_when_told_so(sandbox_environ: dict[str, str], tmp_path: Path, setting: dict[str, str]) -> None:
    environ = {**sandbox_environ, "IMAGEGATE_DATA_DIR": str(tmp_path), **setting}
    with Child(SERVE, environ) as child:
        url = child.said["url"].replace("0.0.0.0", "127.0.0.1")
        answer = httpx2.get(f"{url}/openai/v1/models", trust_env=False)
    assert answer.status_code == (401 if "IMAGEGATE_API_KEY" in setting else 200)
