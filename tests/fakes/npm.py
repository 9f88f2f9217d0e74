"""Packages from npm, installed from their lock by the first worker that needs them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(folder: Path, what: str) -> Path:
    """`folder`'s node_modules, as its package-lock.json has them. Without npm the test is skipped, or fails in CI, for
    `what` was not tested."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail(f"npm is not installed, and CI must not skip {what}")
        pytest.skip(f"npm is not installed: {what.upper()} WERE NOT TESTED")
    lock = (folder / "package-lock.json").read_bytes()
    with (folder / ".installing").open("a+b") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        guard.seek(0)
        if guard.read() != lock or not (folder / "node_modules").is_dir():
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=300)
            guard.truncate(0)
            guard.write(lock)
    return folder / "node_modules"
