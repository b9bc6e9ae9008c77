"""What `RedisBudgets` has Redis do: many jobs of one process in one step, so that each is done once or not at all."""

# A budget is a hash of slices by what was spent in each, and of its life, which is the moment at which it was begun. Lua counts
# in binary fractions, which are exact up to 2**53: that is 9,007 dollars in the unit of a counter. So Redis itself adds (HINCRBY
# knows whole numbers of 64 bits), and what is added up and compared here is cut into two halves, billions and the rest. An amount
# has at most 19 digits.
#
# Each process has a writer: a key with the number of its last step and what became of the jobs in it, "1" or "0" for each. A
# process whose connection broke puts up a fence: no earlier step is taken any more, and it learns what has become of its last.
# A step that an error of Redis ended in the middle has no fate for the jobs it did not come to, and those are never repeated.
APPLY = """
local writer, step, life = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local last = redis.call('HMGET', writer, 'step', 'fence')
if tonumber(last[1] or '0') >= step or tonumber(last[2] or '0') >= step then return {'late'} end
local time = redis.call('TIME')
local now, moment = tonumber(time[1]), string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
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
    if start and start >= from and start <= to then
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
local function add(key, slice, amount, kept, whole, life)
  local known = redis.call('HGET', key, 'life')
  if not known then
    known = moment
    redis.call('HSET', key, 'life', known)
  end
  if life ~= '' and life ~= known then amount = whole end
  local sum = redis.pcall('HINCRBY', key, slice, amount)
  -- More is given back than was spent only after Redis has lost a counter, and that must not raise the limit.
  if type(sum) == 'number' and sum < 0 then redis.call('HSET', key, slice, '0') end
  -- By Redis's own clock it lives as long as it should, whatever that of the process says.
  redis.call('EXPIREAT', key, string.format('%.0f', math.max(tonumber(slice), now) + tonumber(kept)))
  if redis.call('HLEN', key) > 128 then
    local oldest = math.min(tonumber(slice), now) - tonumber(kept)
    for _, start in ipairs(redis.call('HKEYS', key)) do
      if start ~= 'life' and tonumber(start) <= oldest then redis.call('HDEL', key, start) end
    end
  end
  return known
end

local answer, fate, at, number = {'done'}, {}, 3, 2
while at <= #ARGV do
  local kind, count, told, lives, good = ARGV[at], tonumber(ARGV[at + 1]), {0}, {}, true
  at = at + 2
  local done = 0
  for i = 0, count - 1 do
    local key = KEYS[number + i]
    local slice, first, amount, limit, kept, whole, life = unpack(ARGV, at + 7 * i, at + 7 * i + 6)
    if kind ~= 'settle' then
      local hi, lo = held(key, slice, first)
      told[#told + 1] = show(hi, lo)
      good = good and (kind == 'ask' or fits(hi, lo, amount, limit))
    end
    if good and kind ~= 'ask' then
      lives[#lives + 1] = add(key, slice, amount, kept, whole, life)
      done = done + 1
    end
  end
  if not good then
    for i = 0, done - 1 do
      local slice, _, amount = unpack(ARGV, at + 7 * i, at + 7 * i + 2)
      redis.call('HINCRBY', KEYS[number + i], slice, minus(amount))
    end
  end
  fate[#fate + 1] = good and '1' or '0'
  if good then
    told[1] = 1
    if kind == 'charge' then
      for _, life in ipairs(lives) do told[#told + 1] = life end
    end
  else
    -- What is in the way, slice by slice, for a window that has several.
    for i = 0, count - 1 do
      local slice, first, _, limit = unpack(ARGV, at + 7 * i, at + 7 * i + 3)
      told[#told + 1] = (slice == first or limit == '') and {} or redis.call('HGETALL', KEYS[number + i])
    end
  end
  answer[#answer + 1] = told
  at, number = at + 7 * count, number + count
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
