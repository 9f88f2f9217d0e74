"""An adapter that cannot exchange its key is built anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from app.api.auth import Authenticator
from app.breaker import Breakers
from app.catalogue.files import ModelFiles, Names
from app.catalogue.load import Catalogue
from app.config import Config
from app.delivery import Upstream
from app.keyring import KeyRing
from app.limits import LocalLimiter, Rates
from app.live import Live, Running
from app.store.keys import KeyStore
from app.store.sqlite import SqliteDatabase
from providers.base import Fault, Setting
from providers.testing.clock import FakeClock
from tests.live.conftest import write


class Rigid:
    """As little of a provider as this needs."""

    name: ClassVar[str] = "rigid"
    settings: ClassVar[tuple[Setting, ...]] = (Setting("key", "RIGID_KEY", "Key.", secret=True, required=True),)
    label = "Rigid"
    media_origins: frozenset[str] = frozenset()

    def __init__(self, settings: Mapping[str, str], *more: Any) -> None:
        self.key = settings["key"]


def test_it_is_built_anew_and_the_old_one_keeps_its_jobs(tmp_path: Path) -> None:
    write(tmp_path / "key", "first")
    deliverer: Any = object()
    old = Rigid({"key": "first"})
    clock = FakeClock()
    upstreams: dict[str, Upstream] = {"rigid": Upstream(old, deliverer)}  # type: ignore[arg-type]
    breakers = Breakers(clock)
    for offer in ("rigid/a", "rigider/a"):
        attempt = breakers.of(offer)
        attempt.admit()
        attempt.failed(Fault.UNAUTHORIZED, "the key is no good")
    hidden: list[str] = []
    limiter = LocalLimiter(clock)
    database = SqliteDatabase(tmp_path / "imagegate.db")
    running: Any = Running(
        Catalogue([]),
        upstreams,
        {},
        breakers,
        Authenticator("", "", KeyRing(KeyStore(database), clock, now=clock.monotonic), Rates(limiter), limiter),
        lambda name, settings: Rigid(settings),  # type: ignore[arg-type,return-value]
        lambda provider: Upstream(provider, deliverer),
        hidden.extend,
    )
    live = Live(
        Config(),
        {"rigid": {"key": "first"}},
        running,
        load=Config,
        files=ModelFiles(Names(frozenset({"rigid"}), frozenset(), frozenset())),  # ours are refused
        classes={"rigid": Rigid},  # type: ignore[dict-item]
        environ={"RIGID_KEY_FILE": str(tmp_path / "key"), "IMAGEGATE_CONFIG": str(tmp_path / "none")},
    )

    async def exchange() -> None:
        await database.open()
        write(tmp_path / "key", "second")
        live.reload()
        task = asyncio.create_task(live.run())
        while upstreams["rigid"].provider is old:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.close()

    asyncio.run(asyncio.wait_for(exchange(), 20))
    provider: Any = upstreams["rigid"].provider
    assert (old.key, provider.key) == ("first", "second")
    assert "second" in hidden
    assert upstreams["rigid"].deliverer is deliverer
    assert {name: view.locked for name, view in breakers.states().items()} == {"rigid/a": False, "rigider/a": True}
    breakers.keep(["rigider/a"])
    assert list(breakers.states()) == ["rigider/a"]
