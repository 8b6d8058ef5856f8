-- Forgets message ids of one workspace that this run reserved and did not journal.
-- KEYS[1] the run's pendings in the workspace
-- ARGV[1] owner, as the value of a pending; ARGV[2] prefix of the message keys, of KEYS[1]'s slot; ARGV[3] fingerprints,
-- of 22 characters each
local owner, prefix, fingerprints = ARGV[1], ARGV[2], ARGV[3]
local released = 0
for at = 1, #fingerprints, 22 do
  local fingerprint = string.sub(fingerprints, at, at + 21)
  local key = prefix .. fingerprint
  if redis.call('GET', key) == owner then
    redis.call('DEL', key)
    released = released + 1
  end
  redis.call('ZREM', KEYS[1], fingerprint)
end
return released
