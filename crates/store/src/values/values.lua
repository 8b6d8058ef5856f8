-- Values that functions of one workspace keep.
-- KEYS[1] hash: field 'v' .. key → '<due in ms, 0 for never> <value>', field 'used' → bytes of all keys and values
-- KEYS[2] sorted set: keys with a due time, by it; only a list of what can leave, the value's own time decides
-- ARGV[1] get, set, del or incr; ARGV[2] the key; ARGV[3] the value, or what to add; ARGV[4] lifetime in ms, 0 for ever;
-- ARGV[5] most keys; ARGV[6] most bytes
-- Gives {'value', text}, {'none'}, {'done'}, or why not: {'keys'}, {'bytes'}, {'number'}, {'range'}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read(key)
  local kept = redis.call('HGET', KEYS[1], 'v' .. key)
  if not kept then return nil, 0, 0 end
  local gap = string.find(kept, ' ', 1, true)
  return string.sub(kept, gap + 1), tonumber(string.sub(kept, 1, gap - 1)), #key + #kept - gap
end

local function forget(key)
  local value, _, size = read(key)
  redis.call('ZREM', KEYS[2], key)
  if not value then return false end
  redis.call('HDEL', KEYS[1], 'v' .. key)
  redis.call('HINCRBY', KEYS[1], 'used', -size)
  if redis.call('HLEN', KEYS[1]) <= 1 then redis.call('DEL', KEYS[1], KEYS[2]) end
  return true
end

-- What is due leaves, so much at a time that no call is long.
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  local _, due = read(key)
  if due > 0 and due <= now then forget(key) else redis.call('ZREM', KEYS[2], key) end
end
local key = ARGV[2]
local value, due, size = read(key)
if value and due > 0 and due <= now then
  forget(key)
  value, due, size = nil, 0, 0
end

local function keep(text, until_ms)
  local count = redis.call('HLEN', KEYS[1])
  if not value and count - 1 >= tonumber(ARGV[5]) then return { 'keys' } end
  local used = tonumber(redis.call('HGET', KEYS[1], 'used') or '0') - size + #key + #text
  if used > tonumber(ARGV[6]) then return { 'bytes' } end
  redis.call('HSET', KEYS[1], 'v' .. key, string.format('%.0f', until_ms) .. ' ' .. text, 'used', string.format('%.0f', used))
  if until_ms > 0 then redis.call('ZADD', KEYS[2], until_ms, key) else redis.call('ZREM', KEYS[2], key) end
  return nil
end

local lifetime = tonumber(ARGV[4])
local until_ms = lifetime > 0 and now + lifetime or 0
if ARGV[1] == 'get' then
  if value then return { 'value', value } end
  return { 'none' }
elseif ARGV[1] == 'del' then
  if forget(key) then return { 'done' } end
  return { 'none' }
elseif ARGV[1] == 'set' then
  return keep(ARGV[3], until_ms) or { 'done' }
end
if value and not string.find(value, '^%-?%d+$') then return { 'number' } end
-- A lifetime begins with the first addition: a counter of a window ends with its window.
if value then until_ms = due end
local sum = tonumber(value or '0') + tonumber(ARGV[3])
if sum > 9007199254740991 or sum < -9007199254740991 then return { 'range' } end
local text = string.format('%.0f', sum)
return keep(text, until_ms) or { 'value', text }
