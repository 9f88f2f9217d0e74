"""A provider that is not ours: built, installed beside imagegate, held to the suite, found by the gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "provider-package"
MODEL = """
id: night
name: Night
creator: Somebody
modes: [image-edit]
offers:
  - provider: postbox
    endpoint: night-1
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: pictures, type: images, required: true}
"""


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEGATE_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=clean | environ, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    done = run("pip", "install", *offline, "--target", str(folder / "site"), str(folder / "source"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_passes_the_suite_that_imagegate_exports(installed: Path) -> None:
    suite = installed / "suite"
    suite.mkdir()
    shutil.copy(EXAMPLE / "test_imagegate_postbox.py", suite)
    (suite / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = run("pytest", "-q", "-p", "no:cacheprovider", cwd=suite, PYTHONPATH=str(installed / "site"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed" in done.stdout


def test_the_gateway_finds_it_by_its_entry_point(installed: Path) -> None:
    (installed / "night.yaml").write_text(MODEL)
    found = run("app", "models", "check", "night.yaml", cwd=installed, PYTHONPATH=str(installed / "site"))
    assert found.returncode == 0, found.stdout + found.stderr
    missing = run("app", "models", "check", "night.yaml", cwd=installed)
    assert missing.returncode == 1
    assert "no provider 'postbox'" in missing.stdout + missing.stderr
