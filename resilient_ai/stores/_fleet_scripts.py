"""What a `RedisFleet` has Redis do, each step at once and by Redis's own clock."""

# Every key has a lifetime: a set of holders that of its longest lease, a line that of its waiters, a bucket until it is full.

# Which permits are held: a sorted set of holders by the millisecond at which their lease ends. Who waits: a sorted set of
# holders by the microsecond at which they asked first, and another by the millisecond at which they asked last.
_NOW_MS = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "

# Who has not asked for so many milliseconds is gone, or as good as that, and does not hold the others up.
_SILENCE = 1000

ACQUIRE = (
    _NOW_MS
    + f"""
local permits, line, seen, holder, limit = KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', permits, '-inf', now)
local gone = redis.call('ZRANGEBYSCORE', seen, '-inf', now - {_SILENCE}, 'LIMIT', 0, 1000)
if #gone > 0 then
  redis.call('ZREM', line, unpack(gone))
  redis.call('ZREM', seen, unpack(gone))
end
local missing = 0
if not redis.call('ZSCORE', permits, holder) then
  redis.call('ZADD', line, 'NX', t[1] * 1000000 + t[2], holder)
  missing = redis.call('ZRANK', line, holder) + 1 + redis.call('ZCARD', permits) - limit
end
if missing > 0 then
  redis.call('ZADD', seen, now, holder)
  redis.call('PEXPIRE', line, {2 * _SILENCE})
  redis.call('PEXPIRE', seen, {2 * _SILENCE})
  return missing
end
redis.call('ZREM', line, holder)
redis.call('ZREM', seen, holder)
redis.call('ZADD', permits, now + ARGV[3], holder)
redis.call('PEXPIRE', permits, ARGV[3])
return 0
"""
)

# A holder that is missing is put back: its call is under way, whatever became of the set.
RENEW = (
    _NOW_MS
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

RELEASE = """
for i = 1, #KEYS do redis.call('ZREM', KEYS[i], unpack(ARGV)) end
return 1
"""

# What a bucket holds (GCRA): the second at which it is full again.
_FULL = """
local t = redis.call('TIME') local now = t[1] + t[2] / 1000000
local amount, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
"""
_KEEP = """
full = full + amount / rate
if full > now then
  redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1)
else
  redis.call('DEL', KEYS[1])
end
"""

RESERVE = (
    _FULL
    + "local wait = math.max(0, full - (burst - math.min(amount, burst)) / rate - now)"
    + _KEEP
    + "return string.format('%.6f', wait)"
)

SETTLE = _FULL + _KEEP + "return '0'"

# What a fleet is asked to find out whether it answers again.
PING = "return '0'"

ALL = (ACQUIRE, RENEW, RELEASE, RESERVE, SETTLE, PING)
