-- Charges counters of sliding windows, all of them or none.
-- KEYS[i] one counter; its value is a list with one entry per window: {newest slot, counts from the newest slot back}
-- ARGV[1] which key counts the subjects seen for the first time, 0 for none; ARGV[2] how long a subject is remembered in ms
-- then per key: cost, 1 for a subject else 0, number of windows, then per window: ms of a slot, slots, soft limit, hard limit
-- Gives {1, 1 when a soft limit is passed, else 0} or {0, ms until it may go on, which key}.
-- What a window is stands in `window.lua`.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first_seen = tonumber(ARGV[1])
local remember = tonumber(ARGV[2])

local at = 3
local counters = {}
local fresh = 0
for i = 1, #KEYS do
  local counter = { cost = tonumber(ARGV[at]), windows = {}, keep = 0 }
  local subject, count = ARGV[at + 1] == '1', tonumber(ARGV[at + 2])
  at = at + 3
  local held = redis.call('GET', KEYS[i])
  if subject then
    counter.keep = remember
    if not held then fresh = fresh + 1 end
  end
  local states = held and cmsgpack.unpack(held) or {}
  for w = 1, count do
    local window = {
      width = tonumber(ARGV[at]), slots = tonumber(ARGV[at + 1]),
      soft = tonumber(ARGV[at + 2]), hard = tonumber(ARGV[at + 3]), state = states[w] or {},
    }
    at = at + 4
    advance(window.state, window.slots, math.floor(now / window.width))
    counter.keep = math.max(counter.keep, window.width * (window.slots + 1))
    counter.windows[w] = window
  end
  counters[i] = counter
end
if first_seen > 0 then counters[first_seen].cost = fresh end

local noticed = 0
for i, counter in ipairs(counters) do
  for _, window in ipairs(counter.windows) do
    local used = used_of(window, now)
    -- What is larger than the limit itself may go when nothing else counts, or it never could.
    if counter.cost > 0 and used > 0 and used + counter.cost > window.hard then
      return { 0, reset_of(window, used, counter.cost, now), i }
    end
    if counter.cost > 0 and used + counter.cost > window.soft then noticed = 1 end
  end
end

for i, counter in ipairs(counters) do
  local states = {}
  for w, window in ipairs(counter.windows) do
    window.state[2] = window.state[2] + counter.cost
    states[w] = window.state
  end
  redis.call('SET', KEYS[i], cmsgpack.pack(states), 'PX', counter.keep)
end
return { 1, noticed }
