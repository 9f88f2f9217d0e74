"""Clients that are not Python packages of ours: JavaScript ones from npm, Python ones that need other dependencies."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.npm import installed

HERE = Path(__file__).parent
NODE = HERE / "node"

Drive = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The JavaScript clients, installed from the lock by the first worker that needs them."""
    return installed(NODE, "the JavaScript clients")


@pytest.fixture(scope="session")
def node(node_modules: Path) -> Drive:
    """node(script, *arguments) -> the JSON that it printed."""

    def drive(script: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(["node", script, *arguments], cwd=NODE, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    return drive


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """old_python(lock, script, *arguments): a script of this folder with the packages of one of its locks."""

    def drive(lock: str, script: str, *arguments: str) -> dict[str, Any]:
        packages = _installed(HERE / "python" / lock)
        environ = {**os.environ, "PYTHONPATH": str(packages)}
        command = [sys.executable, str(HERE / "python" / script), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    return drive


def _installed(lock: Path) -> Path:
    """A folder with the lock's packages, made by the first worker that needs it."""
    folder = Path(sys.prefix) / "clients" / lock.stem
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".installing").open("a+b") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        guard.seek(0)
        if guard.read() != lock.read_bytes():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
            command += ["--require-hashes", "--no-warn-conflicts", "--target", str(folder), "--requirement", str(lock)]
            command += ["--no-compile"]  # thousands of modules, of which a script imports some
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            guard.truncate(0)
            guard.write(lock.read_bytes())
    return folder
