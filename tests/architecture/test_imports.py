"""The import rules of the house plan hold, and every module stands under one of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_module_of_app_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    placed = {module.strip() for layer in layers for module in layer.split("|")}
    children = {path.stem for path in (ROOT / "app").iterdir() if path.suffix == ".py" and path.stem != "__init__"}
    children |= {path.name for path in (ROOT / "app").iterdir() if (path / "__init__.py").exists()}
    assert {f"app.{child}" for child in children} == placed


def test_every_adapter_is_kept_from_app() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    rule = next(contract for contract in contracts if contract["name"].startswith("app sees only the contract"))
    modules = {path.stem for path in (ROOT / "providers").iterdir() if path.suffix == ".py" or path.is_dir()}
    modules -= {"__init__", "base", "py", "__pycache__"}
    assert {f"providers.{module}" for module in modules if not module.startswith(".")} == set(rule["forbidden_modules"])


@pytest.mark.parametrize("folder", ["app", "providers"])
def test_no_module_is_called_after_nothing(folder: str) -> None:
    banned = {"utils", "util", "helpers", "helper", "manager", "handler", "handlers", "data", "info", "common", "misc"}
    assert not [path for path in (ROOT / folder).rglob("*.py") if path.stem in banned]


@pytest.mark.parametrize("folder", ["app", "providers"])
def test_no_file_is_longer_than_400_lines(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > 400
    }
    assert not long


def test_a_providers_name_stands_only_in_its_own_files() -> None:
    # Prose may name it (a page that a fact comes from); code may not decide by it.
    guilty = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "app").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if ('"fal"' in line or "'fal'" in line or "fal-ai" in line or "FAL_" in line) and "help=" not in line
    ]
    assert guilty == []


def test_no_lock_file_names_an_index_and_all_agree() -> None:
    pins: dict[str, set[str]] = {}
    for path in (*ROOT.glob("*.lock"), *ROOT.glob("bench/peers/*.lock")):
        for line in path.read_text("utf-8").splitlines():
            assert "://" not in line
            assert "--index" not in line
            if line[:1].isalnum() and path.parent == ROOT:  # a peer's environment is its own
                name, _, version = line.split(";")[0].split(" ")[0].partition("==")
                pins.setdefault(name, set()).add(version)
    assert pins
    assert {name: versions for name, versions in pins.items() if len(versions) > 1 and name != "httpx"} == {}
