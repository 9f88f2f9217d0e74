"""The secret that signs URLs, in a file."""

from __future__ import annotations

import os
import secrets as randomness
from functools import partial
from pathlib import Path

from app.storage.draft import sync_folder
from app.storage.keys import MIN_SECRET_BYTES


def load_or_create_secret(path: Path) -> bytes:
    """The secret in a file, as raw bytes; made up and written (hex, mode 0600) if there is no such file.

    Several processes that start at once agree on one: the file appears complete, and only the first can make it.
    """
    try:
        return _load_secret(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{randomness.token_hex(8)}")
    try:
        with open(draft, "x", opener=partial(os.open, mode=0o600), encoding="ascii") as file:
            file.write(randomness.token_hex(MIN_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)  # unlike a rename it fails if another process was first
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return _load_secret(path)


def _load_secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        raise ValueError(f"{path} does not hold a secret in hexadecimal digits") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{path} holds a secret of less than {MIN_SECRET_BYTES} bytes")
    return secret
