"""What a `RedisFleet` has Redis do, each step at once and by Redis's own clock."""

# Every key has a lifetime: a set of holders that of its longest lease, a bucket that until it is full.

# Which permits are held: a sorted set of holders by the millisecond at which their lease ends.
_NOW_MS = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "

ACQUIRE = (
    _NOW_MS
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
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
return redis.call('ZREM', KEYS[1], unpack(ARGV))
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
