"""Which store the settings name."""

from __future__ import annotations

import time
from pathlib import Path

from app.config import Config, ConfigError
from app.storage.bucket import open_bucket
from app.storage.local import LocalStorage
from app.storage.objects import ObjectStorage
from app.storage.secret import load_or_create_secret


def storage_for(config: Config) -> LocalStorage | ObjectStorage:
    """The store that the settings name: a folder, or a bucket with a folder beside it for when that is down. Raises
    ConfigError."""
    root: Path = config.data_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
        given = tuple(key.get_secret_value().encode() for key in config.signing_keys)
        keys = given or (load_or_create_secret(root / "signing.key"),)
    except (OSError, ValueError) as error:
        raise ConfigError(f"data_dir: {root} cannot be used: {error}") from None
    settings = config.storage
    bucket = open_bucket(settings) if settings.url else None
    if bucket is None:
        for name in ("endpoint", "region", "access_key_id", "secret_access_key", "allow_http", "links"):
            if getattr(settings, name) != type(settings).model_fields[name].default:
                raise ConfigError(f"storage.{name}: means nothing without storage.url")
    local = LocalStorage(
        root / ("files" if bucket is None else "spool"),
        keys,
        time.time,
        reserve_bytes=config.limits.free_bytes,
        budget_bytes=settings.budget_bytes,
    )
    if bucket is None:
        return local
    return ObjectStorage(bucket, local, keys, time.time, presigned=settings.links == "presigned")
