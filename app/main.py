"""The composition root: Config -> application. The only place that constructs things; everyone else receives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.admission import Admission
from app.api import errors as api_errors
from app.api import openapi as api_openapi
from app.api.auth import Authenticator
from app.api.edits import edits_router
from app.api.files import files_router
from app.api.generations import generations_router
from app.api.images import Images
from app.api.keys import keys_router
from app.api.middleware import RequestContext
from app.api.models import models_router
from app.api.ops import ops_router
from app.api.pictures import PictureLoader
from app.api.playground import Pages
from app.api.request import RequestReader
from app.api.requests import requests_router
from app.board import Board
from app.breaker import Breakers, BreakerView
from app.budgets import Memory
from app.caretaker import Caretaker
from app.conclusion import Concluder
from app.config import Config, ConfigError
from app.delivery import Deliverer, Upstream
from app.dispatch import Dispatcher
from app.gateway import Gateway
from app.harvest import Harvester
from app.history import History
from app.http1 import Http1
from app.ids import Ids
from app.jobs import Journal
from app.keyring import KeyRing
from app.keys import Keys
from app.limits import Limiter, LocalLimiter, Rates
from app.live import Live, Running
from app.logbook import Logbook
from app.media.blob import Room
from app.media.download import Downloader
from app.media.netguard import Guard
from app.media.pool import MediaPool
from app.models import load_models, model_files
from app.receipts import Receipts, write_log
from app.recovery import Recovery
from app.registry import RegistryError, provider_classes
from app.runs import Runs
from app.shared_limits import RedisLimiter
from app.shared_places import RedisPlaces
from app.sources import Sources
from app.storage.choice import storage_for
from app.store.db import database_for
from app.store.jobs import JobStore
from app.store.keys import KeyStore
from app.store.reports import ReportStore
from app.store.upkeep import Upkeep
from app.sweeping import Sweeper
from app.telemetry import telemetry_for
from app.transport import Client
from providers.base import Provider

log = logging.getLogger("imagegate")

# What a page's script may read of an answer from another origin.
EXPOSED_HEADERS = [
    "x-request-id",
    "retry-after",
    "x-should-retry",
    "openai-processing-ms",
    "x-imagegate-provider",
    "x-imagegate-model",
    "x-imagegate-cost",
    *(f"x-ratelimit-{word}-{what}" for what in ("requests", "images") for word in ("limit", "remaining", "reset")),
]


class SystemClock:
    """Real time."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Application:
    """What `build` constructs."""

    asgi: FastAPI
    gateway: Gateway
    auth: Authenticator
    stopping: Callable[[], None]  # to be called as soon as the end is known
    reload: Callable[[], None]  # look for changed files now


def build(
    config: Config,
    provider_settings: Mapping[str, Mapping[str, str]],
    *,
    load: Callable[[], Config] | None = None,
    stand_ins: frozenset[str] = frozenset(),
    hide: Callable[[Iterable[str]], None] = lambda _: None,
) -> Application:
    """The whole gateway; `provider_settings` are complete, by provider. `load` reads the settings anew while it runs;
    None: they stay. `stand_ins`: providers whose sandbox has taken their place. `hide` keeps secrets that
    come later out of the log.

    Raises ConfigError, CatalogueError, RegistryError.
    """
    classes = provider_classes(config.providers)
    files = model_files(classes)
    catalogue = load_models(config, classes, files)
    clock = SystemClock()
    tls = ssl.create_default_context()  # 30 ms: made once, shared by all that connect
    engine = Http1(tls)
    telemetry = telemetry_for(config, __version__, os.environ)
    storage = storage_for(config)
    pool, random = MediaPool(observe=telemetry.encodes), Random()  # noqa: S311 - jitter
    room = Room(config.limits.spool_memory_bytes)
    upstreams: dict[str, Upstream] = {}
    downloaders: list[Downloader] = []
    clients: dict[str, Client] = {}

    def adapter(name: str, settings: Mapping[str, str]) -> Provider:
        if name not in clients:
            observe, trace = telemetry.exchanges(name), config.pass_traceparent
            clients[name] = Client(
                engine, observe, pass_trace=trace, trust_env=False, follow_redirects=False, timeout=30
            )
        try:
            return classes[name](settings, clients[name], clock)
        except ValueError as error:
            raise RegistryError(f"providers.{name}: {error}") from None

    def attach(provider: Provider) -> Upstream:
        guard = _guard(provider.media_origins, f"providers.{provider.name}.media_origins")
        downloader = Downloader(guard, ssl_context=tls, memory=config.limits.spool_bytes, room=room)
        downloaders.append(downloader)
        deliverer = Deliverer(downloader, pool, storage, config.limits, config.results, clock, time.time, random)
        return Upstream(provider, deliverer)

    for name in catalogue.providers():
        upstreams[name] = attach(adapter(name, provider_settings[name]))
    labels = {name: upstream.provider.label for name, upstream in upstreams.items()}
    database = telemetry.watched(database_for(config.database_url.get_secret_value(), config.data_dir))
    store = JobStore(database)
    owner = secrets.token_hex(8)
    journal = Journal(store, owner, clock, now=time.time, new_id=Ids().job)
    upkeep = Upkeep(database)
    logbook = Logbook(upkeep, clock, prompts=config.log.prompts, payloads=config.log.payload_days > 0)
    harvester = Harvester(journal)
    keep_seconds = config.repeats.keep_seconds
    recovery = Recovery(journal, upstreams, harvester, clock, now=time.time, keep_seconds=keep_seconds)
    limits = config.limits
    board = _board(config, clock)
    places = None if board is None else RedisPlaces(board, clock)
    admission = Admission(clock, jobs=limits.jobs, jobs_per_key=limits.jobs_per_key, queue=limits.queue, places=places)
    breakers = Breakers(clock, _log_health)
    own = LocalLimiter(clock)
    limiter: Limiter = own if board is None else RedisLimiter(board, own)
    rates = Rates(limiter)
    runs = Runs(
        finish=config.on_disconnect == "finish",
        retry_seconds=config.repeats.retry_seconds,
        join_seconds=config.repeats.join_seconds,
        clock=clock,
    )
    concluder = Concluder(
        journal,
        recovery,
        runs,
        Receipts([write_log, logbook.note, *telemetry.receipts]),
        upstreams,
        clock,
        keep_seconds=keep_seconds,
    )
    gateway = Gateway(
        catalogue,
        upstreams,
        Dispatcher(clock, random, journal, admission, breakers),
        harvester,
        journal,
        recovery,
        concluder,
        Caretaker(journal, recovery, runs, concluder, upstreams, clock),
        runs,
        pool,
        rates,
        clock,
        config,
        now=time.time,
    )
    key_store = KeyStore(database)
    ring = KeyRing(key_store, clock, now=time.time)
    keys = Keys(key_store, catalogue, now=time.time, changed=ring.forget)
    auth = Authenticator(
        config.api_key.get_secret_value(),
        config.admin_key.get_secret_value(),
        ring,
        rates,
        limiter,
        (*config.cors_origins, config.public_url.rstrip("/")),
    )
    live = Live(
        config,
        provider_settings,
        Running(catalogue, upstreams, labels, breakers, auth, adapter, attach, hide),
        load=load or (lambda: config),
        files=files,
        classes=classes,
        stand_ins=stand_ins,
    )
    for_callers = Downloader(
        _guard(frozenset(config.image_origins), "image_origins"),
        ssl_context=tls,
        memory=config.limits.spool_bytes,
        room=room,
    )
    reader = RequestReader(
        PictureLoader(for_callers, pool, config.limits),
        config.limits,
        response_format=config.results.response_format,
        strict=config.strict,
        public_url=config.public_url,
        room=room,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await database.open()
        await storage.start()
        if board is None:
            log.info("limits per minute and jobs at once are counted by this process alone (no redis_url)")
        else:
            await board.start()
        if places is not None:
            places.start()
        gateway.start()
        logbook.start()
        sweeper = Sweeper(storage, upkeep, config.log, time.time)
        tasks = [asyncio.create_task(sweeper.work()), asyncio.create_task(live.run())]
        telemetry.start()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await gateway.close()
            await logbook.close()
            if places is not None:
                await places.close()
            if board is not None:
                await board.close()
            await storage.close()
            await database.close()
            for one in (*downloaders, for_callers):
                await one.aclose()
            for client in clients.values():
                await client.aclose()
            pool.close()
            await telemetry.close()

    asgi = FastAPI(
        title="imagegate",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours: app.telemetry, app.tracing
    )
    memory = Memory(limits.memory_bytes)
    images = Images(gateway, reader, config, memory)
    asgi.include_router(edits_router(images, auth))
    asgi.include_router(generations_router(images, auth))
    asgi.include_router(requests_router(History(store, ReportStore(database), upstreams), auth, config.public_url))
    asgi.include_router(models_router(catalogue, labels, stand_ins, auth))
    asgi.include_router(keys_router(keys, auth, config.limits))
    asgi.include_router(files_router(storage))
    asgi.include_router(
        ops_router(
            catalogue, storage, labels, breakers, database.label, board, gateway.problems, live.view, __version__
        )
    )
    pages = Pages([config.public_url, config.storage.endpoint])
    asgi.include_router(pages.router())
    sources = Sources(
        lambda: gateway.catalogue,
        telemetry.visits,
        runs,
        admission,
        breakers,
        memory,
        pool,
        journal,
        database,
        logbook,
        storage,
        board,
    )
    for router in telemetry.routers(sources, config.metrics):
        asgi.include_router(router)
    api_errors.install(asgi, pages.nowhere)
    api_openapi.install(asgi, catalogue)
    if config.cors_origins:
        asgi.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=86_400,
        )
    asgi.add_middleware(RequestContext, new_id=Ids().request, visits=telemetry.visits)
    return Application(asgi, gateway, auth, gateway.stopping, live.reload)


def _guard(origins: frozenset[str], setting: str) -> Guard:
    try:
        return Guard(origins)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None


def _board(config: Config, clock: SystemClock) -> Board | None:
    url = config.redis_url.get_secret_value()
    try:
        return Board(url, clock) if url else None
    except ValueError:  # in its own words it would repeat the URL, and the password with it
        raise ConfigError("redis_url: must be redis://…, rediss://… or unix://…") from None
    except ImportError:
        raise ConfigError("redis_url: needs the package redis. Install imagegate[redis].") from None


def _log_health(offer: str, view: BreakerView) -> None:
    level = logging.INFO if view.state == "closed" else logging.ERROR if view.locked else logging.WARNING
    log.log(level, "%s is %s%s", offer, view.state, f": {view.why}" if view.why else "")
