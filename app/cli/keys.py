"""`imagegate keys`: what /v1/keys does, on the gateway's own database, whether it is running or not."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.keys import Key, Keys

NO_LIMIT = "none"


def add_parser(commands: Any) -> None:
    """Describe the command."""
    keys = commands.add_parser("keys", help="make, list, change, replace and revoke API keys")
    actions = keys.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key; it is shown once")
    create.add_argument("words", nargs="*", metavar="NAME", help="what to call it (or --name)")
    create.add_argument("--name", help=argparse.SUPPRESS)
    _add_limits(create)
    listed = actions.add_parser("list", help="all keys, newest first")
    shown = actions.add_parser("show", help="one key: its limits, and what it has spent")
    update = actions.add_parser("update", help=f"change a key's limits; '{NO_LIMIT}' takes one away")
    rotate = actions.add_parser("rotate", help="another secret for a key; it is shown once")
    revoke = actions.add_parser("revoke", help="a key opens nothing any more, for good")
    for action in (shown, update, rotate, revoke):
        action.add_argument("id", help="key_…")
    update.add_argument("--name")
    _add_limits(update)
    rotate.add_argument(
        "--grace", metavar="SECONDS", help="how long the old secret works beside the new one", default="0"
    )
    for action in (create, listed, shown, update, rotate, revoke):
        action.add_argument("--json", action="store_true", help="as /v1/keys answers")
    keys.set_defaults(run=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for option, metavar, text in (
        ("--budget-day", "USD", "may be spent in a day (UTC)"),
        ("--budget-month", "USD", "may be spent in a month (UTC)"),
        ("--budget-total", "USD", "may be spent in all"),
        ("--requests-per-minute", "N", "requests in any 60 seconds"),
        ("--images-per-minute", "N", "pictures in any 60 seconds"),
        ("--concurrent-jobs", "N", "jobs at once at one provider"),
        ("--models", "A,B", "the only models that it may use"),
        ("--response-format", "WORD", "url or b64_json, when a request does not say"),
        ("--expires-at", "TIME", "such as 2030-01-31T12:00:00Z"),
        ("--expires-in", "SECONDS", "from now"),
    ):
        parser.add_argument(option, metavar=metavar, help=text)
    parser.add_argument(
        "--strict", action=argparse.BooleanOptionalAction, help="refuse unknown parameters", default=None
    )


def run(chosen: argparse.Namespace) -> int:
    """Do it. Raises ConfigError, CatalogueError, GatewayError."""
    from app.config import ConfigError, load_config
    from app.keys import Keys
    from app.models import load_models
    from app.registry import provider_classes
    from app.store.db import StoreError, StoreUnusable, open_database
    from app.store.keys import KeyStore

    config = load_config()
    catalogue = load_models(config, provider_classes(config.providers))

    async def work() -> list[Key]:
        database = await open_database(config.database_url.get_secret_value(), config.data_dir)
        try:
            # A gateway that runs notices by itself, within a second.
            return await _do(chosen, Keys(KeyStore(database), catalogue, now=time.time, changed=lambda: None))
        finally:
            await database.close()

    try:
        done = asyncio.run(work())
    except (ValueError, StoreUnusable, StoreError) as error:
        raise ConfigError(f"database_url: {error}") from None
    _tell(chosen, done)
    return 0


async def _do(chosen: argparse.Namespace, keys: Keys) -> list[Key]:
    match chosen.action:
        case "create":
            name = chosen.name or " ".join(chosen.words)
            return [await keys.create({"name": name, **_given(chosen)})]
        case "list":
            return await _all(keys)
        case "show":
            return [await keys.get(chosen.id)]
        case "update":
            named = {} if chosen.name is None else {"name": chosen.name}
            return [await keys.change(chosen.id, {**named, **_given(chosen)})]
        case "rotate":
            from app.keys import LONGEST_GRACE, seconds_of

            grace = _number(chosen.grace)
            return [await keys.rotate(chosen.id, seconds_of("grace", grace, LONGEST_GRACE) or 0.0 if grace else 0.0)]
        case _:
            return [await keys.revoke(chosen.id)]


async def _all(keys: Keys) -> list[Key]:
    found: list[Key] = []
    after: str | None = None
    while True:
        page = await keys.page(after, 100)
        found += page.keys
        if not page.more:
            return found
        after = page.keys[-1].row.id


def _given(chosen: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON's values: what is wrong with them is said in the same words as to a request."""
    readers: dict[str, Callable[[str], Any]] = {
        "budget_day": str,
        "budget_month": str,
        "budget_total": str,
        "requests_per_minute": _number,
        "images_per_minute": _number,
        "concurrent_jobs": _number,
        "models": lambda text: [part.strip() for part in text.split(",") if part.strip()],
        "response_format": str,
        "expires_at": str,
        "expires_in": _number,
    }
    given: dict[str, Any] = {}
    for name, read in readers.items():
        text = getattr(chosen, name)
        if text is not None:
            given[name] = None if text == NO_LIMIT else read(text)
    if chosen.strict is not None:
        given["strict"] = chosen.strict
    return given


def _number(text: str) -> Any:
    """A number if it is one; else the text, which is then refused by the field's name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _tell(chosen: argparse.Namespace, done: list[Key]) -> None:
    from app.keys import describe

    if chosen.json:
        described = [describe(key) for key in done]
        print(json.dumps(described if chosen.action == "list" else described[0], indent=2, ensure_ascii=False))
        return
    for key in done:
        told = describe(key)
        limits = {name: value for name, value in told["limits"].items() if value not in (None, False)}
        spent = told["spent"]
        print(f"{told['id']}  {told['prefix']}…{told['last4']}  {told['name']}{_state(told)}")
        if limits:
            print("    limits: " + ", ".join(f"{name} {_word(value)}" for name, value in limits.items()))
        print("    spent (USD): " + ", ".join(f"{name} {value}" for name, value in spent.items()))
        if key.secret is not None:
            print(f"    key, shown only now: {key.secret}")
    if not done:
        print("there are no keys")


def _word(value: Any) -> str:
    return "|".join(value) if isinstance(value, list) else str(value)


def _state(told: dict[str, Any]) -> str:
    if told["revoked"] is not None:
        return f"  (revoked {_day(told['revoked'])})"
    if told["expires"] is not None:
        return f"  ({'expired' if told['expires'] <= time.time() else 'expires'} {_day(told['expires'])})"
    return ""


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
