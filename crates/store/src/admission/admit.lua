-- What requests of one workspace that wait together need: marks for what was journaled before them, their limit, and their
-- message ids reserved.
-- KEYS[1] the run's pendings in the workspace; KEYS[2] the workspace's counter, where it is limited
-- ARGV[1] owner, as the value of a pending; ARGV[2] prefix of the message keys, of KEYS[1]'s slot; ARGV[3], ARGV[4]
-- fingerprints that are done as events, as history; ARGV[5] fingerprints to be reserved, of all requests; ARGV[6] numbers:
-- lifetimes in ms of a pending, of what is done, of history; number of windows, then per window: ms of a slot, slots, limit;
-- then per request: what it is charged, how many of the fingerprints are its own. Fingerprints have 22 characters each.
-- Gives letters, then ms until it may go on of each request that is beyond the limit, then the owner of each "p".
-- Letters: "l" for a request beyond the limit, of which nothing is charged or reserved; else "t" and behind it for each of
-- its ids "r" reserved now, "d" done before, "p" pending.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, prefix = ARGV[1], ARGV[2]
local numbers = {}
for number in string.gmatch(ARGV[6], '%d+') do numbers[#numbers + 1] = tonumber(number) end
local lifetime = numbers[1]

for kind = 1, 2 do mark_done(KEYS[1], prefix, ARGV[2 + kind], numbers[1 + kind]) end

local windows = {}
local at, keep = 5, 0
if KEYS[2] then
  local held = redis.call('GET', KEYS[2])
  local states = held and cmsgpack.unpack(held) or {}
  for w = 1, numbers[4] do
    local window = { width = numbers[at], slots = numbers[at + 1], hard = numbers[at + 2], state = states[w] or {} }
    at = at + 3
    advance(window.state, window.slots, math.floor(now / window.width))
    window.used = used_of(window, now)
    keep = math.max(keep, window.width * (window.slots + 1))
    windows[w] = window
  end
end

local letters, resets, owners, reserved = {}, {}, {}, {}
local charged, from = 0, 1
for i = at, #numbers, 2 do
  local cost, count = numbers[i], numbers[i + 1]
  local reset
  for _, window in ipairs(windows) do
    local used = window.used + charged
    -- What is larger than the limit itself may go when nothing else counts, or it never could.
    if cost > 0 and used > 0 and used + cost > window.hard then
      reset = reset_of(window, used, cost, now)
      break
    end
  end
  if reset then
    letters[#letters + 1] = 'l'
    resets[#resets + 1] = tostring(reset)
  else
    letters[#letters + 1] = 't'
    charged = charged + cost
    for place = from, from + (count - 1) * 22, 22 do
      local fingerprint = string.sub(ARGV[5], place, place + 21)
      reserve(prefix, fingerprint, owner, lifetime, now, letters, owners, reserved)
    end
  end
  from = from + count * 22
end

if charged > 0 and KEYS[2] then
  local states = {}
  for w, window in ipairs(windows) do
    window.state[2] = window.state[2] + charged
    states[w] = window.state
  end
  redis.call('SET', KEYS[2], cmsgpack.pack(states), 'PX', keep)
end
keep_pending(KEYS[1], reserved, lifetime, now)
local answer = { table.concat(letters) }
for _, reset in ipairs(resets) do answer[#answer + 1] = reset end
for _, known in ipairs(owners) do answer[#answer + 1] = known end
return answer
