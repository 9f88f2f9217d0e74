"""Rates that several gateways count together, on a Redis or Valkey server, by its clock."""

from __future__ import annotations

import math
import sys

from app.board import PREFIX, Board
from app.limits import GRAIN_SECONDS, WINDOW_SECONDS, Level, LocalLimiter

# A window is a hash: until when it counts, in grains of a quarter of a second -> how much. As LocalLimiter's, it has at
# most 241 fields. What lies further ahead than anything can was entered before the server's clock was set back: it
# counts from now. ARGV: amount, limit, grain, grains of a window. Times in microseconds, all as whole numbers.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local amount, limit, grain = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ahead = math.floor(now / grain) + 1 + tonumber(ARGV[4])
local flat = redis.call('HGETALL', KEYS[1])
local used, last, live = 0, 0, {}
for i = 1, #flat, 2 do
  local slot, taken = tonumber(flat[i]), tonumber(flat[i + 1])
  if slot * grain <= now then
    redis.call('HDEL', KEYS[1], flat[i])
  else
    if slot > ahead then
      redis.call('HDEL', KEYS[1], flat[i])
      redis.call('HINCRBY', KEYS[1], ahead, taken)
      slot = ahead
    end
    used = used + taken
    last = math.max(last, slot)
    live[#live + 1] = {slot, taken}
  end
end
local wait = 0
if used + amount > limit then
  wait = -1
  table.sort(live, function(one, other) return one[1] < other[1] end)
  local rest = used
  for _, entry in ipairs(live) do
    rest = rest - entry[2]
    if rest + amount <= limit then
      wait = entry[1] * grain - now
      break
    end
  end
elseif amount > 0 then
  redis.call('HINCRBY', KEYS[1], ahead, amount)
  used, last = used + amount, ahead
  redis.call('PEXPIRE', KEYS[1], math.ceil((ahead * grain - now) / 1000) + 1000)
end
return {math.max(limit - used, 0), math.max(last * grain - now, 0), wait}
"""

_MICROSECONDS = 1_000_000
_ANY = sys.maxsize


class RedisLimiter:
    """A `Limiter` for all gateways on one server. What this one took it remembers as well: when the server cannot be
    used, or has forgotten, it goes on from there by itself. So a key gets its limit once for each gateway at most."""

    def __init__(self, board: Board, own: LocalLimiter) -> None:
        self._board = board
        self._own = own

    async def take(self, name: str, amount: int, limit: int) -> Level:
        """See Limiter."""
        values = (amount, limit, int(GRAIN_SECONDS * _MICROSECONDS), int(WINDOW_SECONDS / GRAIN_SECONDS))
        answer = await self._board.run(_TAKE, (f"{PREFIX}rate:{name}",), values)
        if answer is None:
            return await self._own.take(name, amount, limit)
        left, reset, wait = answer
        level = Level(limit, left, reset / _MICROSECONDS, math.inf if wait < 0 else wait / _MICROSECONDS)
        if level.wait:
            return level
        if not self._board.recalls(WINDOW_SECONDS + GRAIN_SECONDS):
            own = await self._own.take(name, amount, limit)
            return own if own.wait or own.left < left else level
        if amount:
            await self._own.take(name, amount, _ANY)
        return level
