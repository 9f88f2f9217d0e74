"""What the start tries before anything listens: what cannot work is said then, in one line."""

from __future__ import annotations

import asyncio
import logging
import time

from app.config import Config, ConfigError, check_open
from app.storage.base import StorageError
from app.storage.bucket import BucketUnusable
from app.storage.choice import storage_for
from app.storage.objects import ObjectStorage
from app.store.db import StoreError, StoreUnusable, database_for
from app.store.keys import KeyStore

log = logging.getLogger("imagegate")

DATABASE_SECONDS = 30.0


def check_database(config: Config) -> None:
    """Open the database once, and close it: what is wrong with it is said before anything listens. One that is still
    starting is waited for. It also tells whether there are keys: without any nobody else's machine may reach the
    gateway. Raises ConfigError."""

    async def look() -> None:
        database = database_for(config.database_url.get_secret_value(), config.data_dir)
        end = time.monotonic() + DATABASE_SECONDS
        while True:
            try:
                await database.open()
                break
            except StoreError as error:
                if time.monotonic() > end:
                    raise
                log.warning("waiting for the database: %s", error)
                await asyncio.sleep(1)
        try:
            check_open(config, has_keys=await KeyStore(database).any())
        finally:
            await database.close()

    try:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        asyncio.run(look())
    except (ValueError, StoreUnusable, StoreError) as error:
        raise ConfigError(f"database_url: {error}") from None
    except OSError as error:
        raise ConfigError(f"data_dir: {config.data_dir} cannot be used: {error.strerror}") from None


def check_storage(config: Config) -> None:
    """Do once what will be done with the bucket, if there is one. One that cannot work is said before anything listens;
    one that is merely down is no reason to wait: pictures are kept here until it is there. Raises ConfigError."""
    try:
        try_storage(config)
    except BucketUnusable as error:
        raise ConfigError(f"storage.url: {config.storage.url}: {error}") from None
    except StorageError as error:
        log.warning("starting without the bucket: %s", error)


def try_storage(config: Config) -> None:
    """Do once what will be done with the store. Raises ConfigError, StorageError."""
    storage = storage_for(config)
    if isinstance(storage, ObjectStorage):
        asyncio.run(storage.check())
