"""Who of all gateways has a job running for which key, on a Redis or Valkey server, by its clock.

A place is held by a lease that its gateway renews. One that dies lets go of its places by that.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict

from app.board import PREFIX, Board
from providers.base import Clock

LEASE_SECONDS = 6
RENEW_SECONDS = LEASE_SECONDS / 3
MOST_AT_ONCE = 500  # in one call

# The places of a key at a provider: a sorted set, place -> until when (microseconds). A lease that ends later than any
# can was given before the server's clock was set back. ARGV: lease in seconds, then as each says.
_TIDY = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease = tonumber(ARGV[1]) * 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('%.0f', now + 2 * lease), '+inf')
"""
_TAKE = (  # the most there may be, the place
    _TIDY
    + """
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return {0} end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + lease), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2000)
return {1}
"""
)
_RENEW = (  # places
    _TIDY
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', now + lease), ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2000)
return {1}
"""
)
_LEAVE = "return {redis.call('ZREM', KEYS[1], ARGV[1])}"  # the place


class RedisPlaces:
    """`Places` that all gateways on one server share. While it cannot be used, each gateway's own limit is all there
    is; what runs by then is entered when it can be used again."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._held: defaultdict[str, set[str]] = defaultdict(set)  # by the set's name
        self._leaving: set[asyncio.Task[object]] = set()
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Renew from now on."""
        self._renewing = asyncio.create_task(self._renew(), name="places")

    async def close(self) -> None:
        """End; what is held runs out by itself."""
        tasks = [*self._leaving, *([self._renewing] if self._renewing is not None else [])]
        if self._renewing is not None:
            self._renewing.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def name(self) -> str:
        """See Places."""
        return secrets.token_hex(8)

    async def take(self, provider: str, caller: str, most: int, place: str) -> bool:
        """See Places."""
        key = _key(provider, caller)
        answer = await self._board.run(_TAKE, (key,), (LEASE_SECONDS, most, place))
        if answer == [0]:
            return False
        self._held[key].add(place)
        return True

    def leave(self, provider: str, caller: str, place: str) -> None:
        """See Places."""
        key = _key(provider, caller)
        held = self._held.get(key)
        if held is not None:
            held.discard(place)
            if not held:
                del self._held[key]
        task: asyncio.Task[object] = asyncio.create_task(self._board.run(_LEAVE, (key,), (place,)))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _renew(self) -> None:
        while True:
            for key in list(self._held):
                places = sorted(self._held.get(key, ()))
                for first in range(0, len(places), MOST_AT_ONCE):
                    await self._board.run(_RENEW, (key,), (LEASE_SECONDS, *places[first : first + MOST_AT_ONCE]))
            await self._clock.sleep(RENEW_SECONDS)


def _key(provider: str, caller: str) -> str:
    return f"{PREFIX}places:{provider}:{caller}"
