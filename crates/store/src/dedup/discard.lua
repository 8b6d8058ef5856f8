-- Forgets up to ARGV[3] pendings that an earlier run left: the journal does not have them.
-- KEYS[1] the earlier run's pendings in the workspace
-- ARGV[1] the earlier owner, as the value of a pending; ARGV[2] prefix of the message keys, of KEYS[1]'s slot
-- Gives {how many were taken from the set, how many were still pending}.
local taken = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)
local discarded = 0
for _, fingerprint in ipairs(taken) do
  local key = ARGV[2] .. fingerprint
  if redis.call('GET', key) == ARGV[1] then
    redis.call('DEL', key)
    discarded = discarded + 1
  end
  redis.call('ZREM', KEYS[1], fingerprint)
end
return { #taken, discarded }
