"""What every store shares: keys that carry their expiry, and URLs that bear a signature.

    <expiry, 8 hex><random, 32 hex>.png    in the folder <expiry's hour, hex>/, or keep-<2 hex>/ if it never expires

The expiry is in the name, not in the file's time, a side-car or a database: copies, restores and restarts lose
nothing, and there is no second thing to keep in step. The folder per hour makes a sweep look only at what is due,
however much there is. A directory and a bucket are laid out alike, so one can be copied to the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets as randomness
from collections.abc import Callable, Sequence
from functools import lru_cache

from app.errors import Expired, InvalidSignature, NotFound
from app.storage.base import CONTENT_TYPES

MIN_SECRET_BYTES = 32  # HMAC-SHA256 wants a key as long as its hash, RFC 2104
HOUR = re.compile(r"[0-9a-f]{1,6}")
_NEVER = 0xFFFFFFFF  # the year 2106
_KEY = re.compile(rf"(?P<expires>[0-9a-f]{{8}})(?P<name>[0-9a-f]{{32}})\.(?P<extension>{'|'.join(CONTENT_TYPES)})")
_QUERY = re.compile(r"exp=(?P<exp>[1-9][0-9]{0,10})&sig=(?P<sig>[A-Za-z0-9_-]{43})")


def new_key(content_type: str, extension: str, expires_at: float | None) -> str:
    """A key that nobody can guess."""
    if CONTENT_TYPES.get(extension) != content_type:
        raise ValueError(f"a .{extension} file is no {content_type}")
    expires = _NEVER if expires_at is None else math.ceil(expires_at)
    if expires_at is not None and not 0 < expires < _NEVER:
        raise ValueError(f"{expires_at} is no time to expire at")
    return f"{expires:08x}{randomness.token_hex(16)}.{extension}"


def is_key(name: str) -> bool:
    """Whether a file of that name is a picture of ours."""
    return _KEY.fullmatch(name) is not None


def place_of(key: str) -> str:
    """Where a key's picture lies: `folder/key`. The only way from a key to a disk or a bucket. Raises NotFound."""
    match = _match(key)
    expires = int(match["expires"], 16)
    folder = f"keep-{match['name'][:2]}" if expires == _NEVER else f"{expires // 3600:x}"
    return f"{folder}/{key}"


def expiry_of(key: str) -> int | None:
    """When a key's picture expires; None: never. Raises NotFound."""
    expires = int(_match(key)["expires"], 16)
    return None if expires == _NEVER else expires


def type_of(key: str) -> str:
    """A key's content type. Raises NotFound."""
    return CONTENT_TYPES[_match(key)["extension"]]


def etag_of(key: str) -> str:
    """A key's bytes never change."""
    return f'"{key.partition(".")[0]}"'


def is_due(key: str, due: float) -> bool:
    """Whether a name is a key of ours that expired before `due`."""
    return is_key(key) and int(key[:8], 16) < due


def _match(key: str) -> re.Match[str]:
    match = _KEY.fullmatch(key)
    if match is None:
        raise NotFound("There is no such file.")
    return match


class SignedStorage:
    """The half of a `Storage` that needs no place to store: signatures and expiry."""

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float], skew_seconds: float) -> None:
        """The first secret signs, each verifies: to change it, put a new one before the old."""
        if not secrets or any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"storage needs one secret or more, each of {MIN_SECRET_BYTES} bytes at least")
        self._secrets = tuple(secrets)
        self._clock = clock
        self._skew = skew_seconds

    def sign(self, key: str, expires_at: float) -> str:
        """The path and query by which anybody may read it until then."""
        _match(key)
        expires = math.ceil(expires_at)
        return f"/files/{key}?exp={expires}&sig={_signature(self._secrets[0], key, expires)}"

    def expiry(self, key: str) -> float | None:
        """When a picture expires."""
        return expiry_of(key)

    def verify(self, key: str, query: str) -> int:
        """When the signature of a requested URL runs out. `query` is the raw query string."""
        _match(key)
        match = _QUERY.fullmatch(query)
        if match is None:
            raise InvalidSignature("The URL's signature is not valid.")
        expires = int(match["exp"])
        valid = False
        for secret in self._secrets:  # all of them, so that time does not tell which one it was
            valid |= hmac.compare_digest(_signature(secret, key, expires), match["sig"])
        if not valid:
            raise InvalidSignature("The URL's signature is not valid.")
        if self._clock() > expires + self._skew:
            raise Expired("The URL has expired.")
        return expires

    def _alive(self, key: str) -> int | None:
        """When a picture expires, if it has not: what has is not there, even before a sweep. Raises NotFound."""
        expires = expiry_of(key)
        if expires is not None and self._clock() > expires + self._skew:
            raise NotFound("There is no such file.")
        return expires


@lru_cache(maxsize=16)
def _begun(secret: bytes) -> hmac.HMAC:
    """To set one up takes ten times as long as to go on from a copy."""
    return hmac.new(secret, digestmod=hashlib.sha256)


def _signature(secret: bytes, key: str, expires: int) -> str:
    begun = _begun(secret).copy()
    begun.update(f"imagegate files v1\n{key}\n{expires}".encode())
    digest = begun.digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
