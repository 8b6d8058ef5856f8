-- Turns those message ids of one workspace into done that an earlier run reserved: the journal has them.
-- KEYS[1] the earlier run's pendings in the workspace
-- ARGV[1] the earlier owner, as the value of a pending; ARGV[2] lifetime in ms; ARGV[3] prefix of the message keys, of
-- KEYS[1]'s slot; ARGV[4] fingerprints, of 22 characters each
local owner, lifetime, prefix, fingerprints = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local settled = 0
for at = 1, #fingerprints, 22 do
  local fingerprint = string.sub(fingerprints, at, at + 21)
  local key = prefix .. fingerprint
  if redis.call('ZREM', KEYS[1], fingerprint) == 1 and redis.call('GET', key) == owner then
    redis.call('SET', key, 'd', 'PX', lifetime)
    settled = settled + 1
  end
end
return settled
