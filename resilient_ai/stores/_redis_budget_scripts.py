"""What `RedisBudgets` has Redis do: many jobs of one process in one step, so that each is done once or not at all."""

# A budget is a hash of slices by what was spent in each. Lua counts in binary fractions, which are exact up to 2**53: that is
# 9,007 dollars in the unit of a counter. So Redis itself adds (HINCRBY knows whole numbers of 64 bits), and what is added up and
# compared here is cut into two halves, billions and the rest. An amount has at most 19 digits.
#
# Each process has a writer: a key with the number of its last step and what became of the jobs in it, "1" or "0" for each. A
# process whose connection broke puts up a fence: no earlier step is taken any more, and it learns what has become of its last.
# A step that an error of Redis ended in the middle has no fate for the jobs it did not come to, and those are never repeated.
APPLY = """
local writer, step, life = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local last = redis.call('HMGET', writer, 'step', 'fence')
if tonumber(last[1] or '0') >= step or tonumber(last[2] or '0') >= step then return {'late'} end
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', writer, 'step', ARGV[1])
redis.call('HSET', writer, 'fate', '')
redis.call('EXPIRE', writer, life)
local E = 1000000000

local function norm(hi, lo)
  local carry = math.floor(lo / E)
  return hi + carry, lo - carry * E
end
local function split(text)
  local sign = 1
  if string.sub(text, 1, 1) == '-' then sign, text = -1, string.sub(text, 2) end
  local n = #text
  if n <= 9 then return 0, sign * tonumber(text) end
  return sign * tonumber(string.sub(text, 1, n - 9)), sign * tonumber(string.sub(text, n - 8))
end
local function show(hi, lo)
  if hi == 0 then return string.format('%.0f', lo) end
  return string.format('%.0f%09.0f', hi, lo)
end
local function held(key, slice, first)
  local hi, lo = 0, 0
  if slice == first then
    local text = redis.call('HGET', key, slice)
    if text then hi, lo = split(text) end
    return norm(hi, lo)
  end
  local from, to = tonumber(first), tonumber(slice)
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local start = tonumber(fields[i])
    if start >= from and start <= to then
      local h, l = split(fields[i + 1])
      hi, lo = hi + h, lo + l
    end
  end
  return norm(hi, lo)
end
local function fits(hi, lo, amount, limit)
  if limit == '' then return true end
  local h, l = split(amount)
  h, l = norm(hi + h, lo + l)
  local most, rest = norm(split(limit))
  return h < most or (h == most and l <= rest)
end
local function minus(text)
  if string.sub(text, 1, 1) == '-' then return string.sub(text, 2) end
  return text == '0' and '0' or '-' .. text
end
local function add(key, slice, amount, kept)
  local sum = redis.pcall('HINCRBY', key, slice, amount)
  -- More is given back than was spent only after Redis has lost a counter, and that must not raise the limit.
  if type(sum) == 'number' and sum < 0 then redis.call('HSET', key, slice, '0') end
  -- By Redis's own clock it lives as long as it should, whatever that of the process says.
  redis.call('EXPIREAT', key, string.format('%.0f', math.max(tonumber(slice), now) + tonumber(kept)))
  if redis.call('HLEN', key) > 128 then
    local oldest = math.min(tonumber(slice), now) - tonumber(kept)
    for _, start in ipairs(redis.call('HKEYS', key)) do
      if tonumber(start) <= oldest then redis.call('HDEL', key, start) end
    end
  end
end

local answer, fate, at, number = {'done'}, {}, 3, 2
while at <= #ARGV do
  local kind, count, spent, good = ARGV[at], tonumber(ARGV[at + 1]), {}, true
  at = at + 2
  local done = 0
  for i = 0, count - 1 do
    local key, slice, first, amount, limit, kept = KEYS[number + i], unpack(ARGV, at + 5 * i, at + 5 * i + 4)
    if kind ~= 'settle' then
      local hi, lo = held(key, slice, first)
      spent[#spent + 1] = show(hi, lo)
      good = good and (kind == 'ask' or fits(hi, lo, amount, limit))
    end
    if good and kind ~= 'ask' then
      add(key, slice, amount, kept)
      done = done + 1
    end
  end
  if not good then
    for i = 0, done - 1 do
      local slice, _, amount = unpack(ARGV, at + 5 * i, at + 5 * i + 2)
      redis.call('HINCRBY', KEYS[number + i], slice, minus(amount))
    end
  end
  fate[#fate + 1] = good and '1' or '0'
  answer[#answer + 1] = {good and 1 or 0, unpack(spent)}
  at, number = at + 5 * count, number + count
end
redis.call('HSET', writer, 'fate', table.concat(fate))
return answer
"""

# Returns the last step that was taken and what became of its jobs.
FENCE = """
local last = redis.call('HMGET', KEYS[1], 'step', 'fate')
redis.call('HSET', KEYS[1], 'fence', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {last[1] or '0', last[2] or ''}
"""
