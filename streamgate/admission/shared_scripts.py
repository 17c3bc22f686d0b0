"""What Redis does in one step each. Redis' own clock counts, so that replicas need not agree on the time.

    slots   a sorted set per level and name: lease -> when it expires (ms)
    rates   a hash per level and name: what the bucket of requests (r) or tokens (t) held, and when (ra, ta; ms)
    gone    a sorted set of leases that were given back while a call that takes them might still be under way: such a
            call, executed late, takes nothing
    settled a number per replica: the last batch of token differences that was counted

All keys share one hash tag, so that a Redis Cluster keeps them together. Redis 5 or newer, or what is compatible.
"""

from __future__ import annotations

from streamgate.store import Script

# Every key goes by itself after a day without use: longer than any lease and than any bucket takes to fill.
_COMMON = """
local DAY = 86400000
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000

local function used(slots)
  redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
  return redis.call('ZCARD', slots)
end

local function level(rates, kind, limit)
  local held = redis.call('HMGET', rates, kind, kind .. 'a')
  if not held[1] then return limit end
  return math.min(limit, tonumber(held[1]) + math.max(0, now - tonumber(held[2])) * limit / 60000)
end

local function charge(rates, kind, limit, count)
  if limit == 0 then return end
  redis.call('HSET', rates, kind, math.min(limit, level(rates, kind, limit) - count), kind .. 'a', now)
  redis.call('PEXPIRE', rates, DAY)
end
"""

# KEYS: gone, then slots and rates of each bound. ARGV: lease, its time to live (ms), tokens, how many bounds must all
# have room (of the rest, one), then each bound's concurrent, requests and tokens per minute (0: no limit).
# Answers "T i": taken, bound i of the rest (-1: there is none). "F i": bound i is full. "R i ms": its rate has room in
# so many milliseconds. "G -1": that lease is gone.
TAKE = Script(
    _COMMON
    + """
local lease, ttl, tokens, must = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bounds = (#KEYS - 1) / 2
if redis.call('ZSCORE', KEYS[1], lease) then return {ok = 'G -1 0'} end

local function limit(i, which) return tonumber(ARGV[5 + 3 * i + which]) end

-- Milliseconds until a bucket has room for so many; for more than it can ever hold: until it is full.
local function lacking(i, kind, limit, count)
  if limit == 0 or count == 0 then return 0 end
  local missing = math.min(count, limit) - level(KEYS[3 + 2 * i], kind, limit)
  if missing < 0.000001 then return 0 end
  return missing * 60000 / limit
end

local function denied(i)
  local slots, concurrent = KEYS[2 + 2 * i], limit(i, 0)
  if concurrent > 0 and used(slots) >= concurrent and not redis.call('ZSCORE', slots, lease) then return 'F', 0 end
  local wait = math.max(lacking(i, 'r', limit(i, 1), 1), lacking(i, 't', limit(i, 2), tokens))
  if wait > 0 then return 'R', wait end
end

local function answer(what, i, wait)
  return {ok = string.format('%s %d %.3f', what, i, wait)}
end

local function book(i)
  if limit(i, 0) > 0 then
    redis.call('ZADD', KEYS[2 + 2 * i], now + ttl, lease)
    redis.call('PEXPIRE', KEYS[2 + 2 * i], DAY)
  end
  charge(KEYS[3 + 2 * i], 'r', limit(i, 1), 1)
  charge(KEYS[3 + 2 * i], 't', limit(i, 2), tokens)
end

for i = 0, must - 1 do
  local what, wait = denied(i)
  if what then return answer(what, i, wait) end
end
local chosen, why, least, where = -1, nil, 0, -1
for i = must, bounds - 1 do
  local what, wait = denied(i)
  if not what then
    chosen = i
    break
  end
  -- One that is full may have room at any moment; else the one whose rate has room first.
  if not why or (why == 'R' and (what == 'F' or wait < least)) then why, least, where = what, wait, i end
end
if why and chosen < 0 then return answer(why, where, least) end
for i = 0, must - 1 do book(i) end
if chosen >= 0 then book(chosen) end
return answer('T', chosen, 0)
"""
)

# KEYS: gone, then slots. ARGV: time to live (ms), then for each slots how many leases and these.
# A lease that Redis does not know is taken in: it began without Redis, or Redis has lost its memory.
RENEW = Script(
    _COMMON
    + """
local ttl, at = tonumber(ARGV[1]), 2
for k = 2, #KEYS do
  local last = at + tonumber(ARGV[at])
  for i = at + 1, last do
    if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then redis.call('ZADD', KEYS[k], now + ttl, ARGV[i]) end
  end
  redis.call('PEXPIRE', KEYS[k], DAY)
  at = last + 1
end
return 1
"""
)

# KEYS: gone, then slots. ARGV: time to live (ms), channel, sender, how many of the leases are gone for good and these,
# then for each slots its limit, how many leases and these. Tells the channel only when somebody may wait for a slot.
GIVE_BACK = Script(
    _COMMON
    + """
local at = 5 + tonumber(ARGV[4])
for i = 5, at - 1 do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i]) end
if at > 5 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  redis.call('PEXPIRE', KEYS[1], DAY)
end
local wanted = false
for k = 2, #KEYS do
  local last = at + 1 + tonumber(ARGV[at + 1])
  local before = used(KEYS[k])
  if redis.call('ZREM', KEYS[k], unpack(ARGV, at + 2, last)) > 0 and before >= tonumber(ARGV[at]) then wanted = true end
  at = last + 1
end
if wanted then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
"""
)

# KEYS: the number of the sender's last batch, then rates. ARGV: this batch's number, then for each rates its tokens per
# minute and how many more than estimated were used (or fewer: negative). The same batch sent again counts once.
SETTLE = Script(
    _COMMON
    + """
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', DAY)
for k = 2, #KEYS do charge(KEYS[k], 't', tonumber(ARGV[2 * k - 2]), tonumber(ARGV[2 * k - 1])) end
return 1
"""
)
