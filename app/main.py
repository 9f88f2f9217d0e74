"""The composition root: Config -> application. The only place that constructs things; everyone else receives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx2
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.api import errors as api_errors
from app.api import openapi as api_openapi
from app.api.auth import Authenticator
from app.api.edits import edits_router
from app.api.files import files_router
from app.api.middleware import RequestContext
from app.api.models import models_router
from app.api.ops import ops_router
from app.api.pictures import PictureLoader
from app.api.request import RequestReader
from app.catalogue.load import HERE, Catalogue, check_model, load_catalogue, load_common, load_model
from app.catalogue.schema import Model
from app.config import Config, ConfigError
from app.delivery import Deliverer
from app.dispatch import Dispatcher
from app.gateway import Gateway, Upstream
from app.media.download import Downloader
from app.media.netguard import Guard
from app.media.pool import MediaPool
from app.params.convert import CONVERTERS
from app.params.emulate import EMULATORS
from app.receipts import Receipts, write_log
from app.registry import ProviderClass, RegistryError, provider_classes
from app.storage.base import Storage
from app.storage.local import LocalStorage, load_or_create_secret

log = logging.getLogger("imagegate")

SWEEP_SECONDS = 60.0
# What a page's script may read of an answer from another origin.
EXPOSED_HEADERS = [
    "x-request-id",
    "retry-after",
    "x-should-retry",
    "openai-processing-ms",
    "x-imagegate-provider",
    "x-imagegate-model",
    "x-imagegate-cost",
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


def load_models(config: Config, classes: Mapping[str, ProviderClass]) -> Catalogue:
    """Our model files, then the operator's over them. Raises CatalogueError."""
    folders = [HERE / "models", *([config.models_dir] if config.models_dir else [])]
    return load_catalogue(
        folders,
        providers=frozenset(classes),
        converters=frozenset(CONVERTERS),
        emulators=frozenset(EMULATORS),
        aliases=config.aliases,
    )


def check_model_file(path: Path, classes: Mapping[str, ProviderClass]) -> Model:
    """One model file by itself, as the start would judge it. Raises CatalogueError."""
    return check_model(
        load_model(path, load_common()),
        path.name,
        providers=frozenset(classes),
        converters=frozenset(CONVERTERS),
        emulators=frozenset(EMULATORS),
    )


def build(config: Config, provider_settings: Mapping[str, Mapping[str, str]]) -> Application:
    """The whole gateway; `provider_settings` are complete, by provider.

    Raises ConfigError, CatalogueError, RegistryError.
    """
    classes = provider_classes()
    catalogue = load_models(config, classes)
    clock = SystemClock()
    tls = ssl.create_default_context()  # 30 ms: made once, shared by all that connect
    http = httpx2.AsyncClient(
        verify=tls,
        trust_env=False,
        follow_redirects=False,
        timeout=30,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
    )
    storage = _storage(config)
    pool = MediaPool()
    upstreams: dict[str, Upstream] = {}
    downloaders: list[Downloader] = []
    for name in sorted({offer.provider for model in catalogue for offer in model.offers}):
        try:
            provider = classes[name](provider_settings[name], http, clock)
        except ValueError as error:
            raise RegistryError(f"providers.{name}: {error}") from None
        downloader = Downloader(_guard(provider.media_origins, f"providers.{name}.media_origins"), ssl_context=tls)
        downloaders.append(downloader)
        deliverer = Deliverer(downloader, pool, storage, config.limits, config.results, clock, time.time)
        upstreams[name] = Upstream(provider, deliverer)
    labels = {name: upstream.provider.label for name, upstream in upstreams.items()}
    gateway = Gateway(
        catalogue,
        upstreams,
        Dispatcher(clock, Random()),  # noqa: S311 - jitter
        pool,
        Receipts([write_log]),
        clock,
        request_seconds=config.request_seconds,
        keep_results_seconds=config.results.url_seconds,
        now=time.time,
    )
    auth = Authenticator(config.api_key.get_secret_value(), (*config.cors_origins, config.public_url.rstrip("/")))
    for_callers = Downloader(_guard(frozenset(config.image_origins), "image_origins"), ssl_context=tls)
    reader = RequestReader(
        PictureLoader(for_callers, pool, config.limits),
        config.limits,
        response_format=config.results.response_format,
        strict=config.strict,
        public_url=config.public_url,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        sweeper = asyncio.create_task(_sweep(storage))
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)
            await gateway.settle()
            for one in (*downloaders, for_callers):
                await one.aclose()
            await http.aclose()
            pool.close()

    asgi = FastAPI(
        title="imagegate", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    asgi.include_router(edits_router(gateway, reader, auth, config.limits))
    asgi.include_router(models_router(catalogue, labels, auth))
    asgi.include_router(files_router(storage))
    asgi.include_router(ops_router(catalogue, storage, labels, __version__))
    api_errors.install(asgi)
    api_openapi.install(asgi)
    if config.cors_origins:
        asgi.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=86_400,
        )
    asgi.add_middleware(RequestContext, new_id=lambda: f"req_{secrets.token_hex(16)}")
    return Application(asgi, gateway)


def _guard(origins: frozenset[str], setting: str) -> Guard:
    try:
        return Guard(origins)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None


def _storage(config: Config) -> LocalStorage:
    root: Path = config.data_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
        secret = load_or_create_secret(root / "signing.key")
    except (OSError, ValueError) as error:
        raise ConfigError(f"data_dir: {root} cannot be used: {error}") from None
    return LocalStorage(root / "files", [secret], time.time)


async def _sweep(storage: Storage) -> None:
    """Expired pictures go, once a minute, for as long as the gateway runs."""
    while True:
        try:
            gone = await storage.delete_expired(time.time())
            if gone:
                log.info("%d expired pictures deleted", gone)
        except Exception:
            log.exception("the store could not be swept")
        await asyncio.sleep(SWEEP_SECONDS)
