"""`imagegate keys`, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from app.children import Child
from tests.conftest import MODEL, Json
from tests.keys.conftest import bearer


def imagegate(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "keys", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def keys_command(environ: dict[str, str], *arguments: str) -> Json:
    """What it answers with --json."""
    done = imagegate(environ, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    told: Json = json.loads(done.stdout)
    return told


@pytest.fixture
def environ(sandbox_environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**sandbox_environ, "IMAGEGATE_DATA_DIR": str(tmp_path)}


def test_a_key_from_its_beginning_to_its_end(environ: dict[str, str]) -> None:
    made = keys_command(environ, "create", "a", "team", "--budget-day", "1.25", "--models", MODEL, "--strict")
    assert made["name"] == "a team"
    assert made["limits"]["budget_day"] == 1.25
    assert made["limits"]["models"] == [MODEL]
    assert made["limits"]["strict"] is True
    changed = keys_command(environ, "update", made["id"], "--budget-day", "none", "--images-per-minute", "7")
    assert (changed["limits"]["budget_day"], changed["limits"]["images_per_minute"]) == (None, 7)
    rotated = keys_command(environ, "rotate", made["id"], "--grace", "60")
    assert rotated["key"] != made["key"]
    assert keys_command(environ, "show", made["id"])["last4"] == rotated["last4"]
    assert keys_command(environ, "revoke", made["id"])["revoked"]
    shown = imagegate(environ, "list")
    assert made["id"] in shown.stdout
    assert "revoked" in shown.stdout
    for secret in (made["key"], rotated["key"]):
        assert secret not in shown.stdout


def test_a_new_key_is_printed_for_people_too(environ: dict[str, str]) -> None:
    assert imagegate(environ, "list").stdout == "there are no keys\n"
    done = imagegate(environ, "create", "--name", "a", "--expires-in", "60")
    assert "key, shown only now: ig_" in done.stdout
    assert "expires" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["create", "a", "--budget-day", "much"], "invalid_type: Invalid type for 'budget_day'"),
        (["create", "a", "--models", "nothing"], "invalid_value: Invalid 'models'"),
        (["create"], "empty_string: Invalid 'name'"),
        (["show", "key_0"], "not_found: There is no key 'key_0'"),
        (["rotate", "key_0", "--grace", "soon"], "invalid_type: Invalid type for 'grace'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(environ: dict[str, str], arguments: list[str], reason: str) -> None:
    done = imagegate(environ, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"imagegate: {reason}")
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_cannot_be_used_is_one_clear_line(environ: dict[str, str]) -> None:
    done = imagegate({**environ, "IMAGEGATE_DATABASE_URL": "postgresql://a:secret@127.0.0.1:9/x"}, "list")
    assert done.returncode == 2
    assert done.stderr.startswith("imagegate: database_url: ")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("how", ["a key in the database", "an admin key"])
def test_with_a_key_a_gateway_starts_on_any_address(environ: dict[str, str], how: str) -> None:
    environ["IMAGEGATE_HOST"] = "0.0.0.0"
    key = "adm-0123456789"
    if how == "an admin key":
        environ["IMAGEGATE_ADMIN_KEY"] = key
    else:
        key = keys_command(environ, "create", "first")["key"]
    with Child(["serve", "--port", "0"], environ) as child:
        url = child.said["url"].replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{url}/openai/v1/models", trust_env=False).status_code == 401
        assert httpx2.get(f"{url}/openai/v1/models", headers=bearer(key), trust_env=False).status_code == 200


def test_the_admin_key_must_be_another_than_the_static_one(environ: dict[str, str]) -> None:
    done = imagegate({**environ, "IMAGEGATE_ADMIN_KEY": "same", "IMAGEGATE_API_KEY": "same"}, "list")
    assert done.returncode == 2
    assert done.stderr == "imagegate: admin_key: must be another key than api_key\n"
