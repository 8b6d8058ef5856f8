-- Windows that slide by slots, as `charge.lua` and `admit.lua` keep them; the text of this file stands in front of theirs.
-- A window is {width = ms of a slot, slots = how many, hard = limit, state = {newest slot, counts from the newest slot back}}.
-- The slot that is leaving counts by the share of it that is still inside.

local function advance(state, slots, slot)
  if #state ~= slots + 2 then
    for i = 1, #state do state[i] = nil end
    state[1] = slot
    for i = 2, slots + 2 do state[i] = 0 end
    return
  end
  local moved = slot - state[1]
  -- A clock that was set back adds to the newest slot.
  if moved <= 0 then return end
  for i = slots + 2, 2, -1 do
    local from = i - moved
    state[i] = from >= 2 and state[from] or 0
  end
  state[1] = slot
end

-- What a window holds now.
local function used_of(window, now)
  local state, slots, used = window.state, window.slots, 0
  for s = 2, slots + 1 do used = used + state[s] end
  return used + state[slots + 2] * (1 - (now % window.width) / window.width)
end

-- In how many ms `cost` may go on.
local function reset_of(window, used, cost, now)
  local state, slots, reset = window.state, window.slots, window.width
  for s = slots + 2, 2, -1 do
    used = used - state[s]
    reset = (state[1] + slots + 3 - s) * window.width - now
    if used <= 0 or used + cost <= window.hard then break end
  end
  return math.ceil(reset)
end

