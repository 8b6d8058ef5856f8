-- Forgets message ids of one workspace that this run reserved and did not journal.
-- KEYS[1] the run's pendings in the workspace; KEYS[2..] one key per message id
-- ARGV[1] owner, as the value of a pending; ARGV[2..] fingerprints
local released = 0
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('DEL', KEYS[i])
    released = released + 1
  end
  redis.call('ZREM', KEYS[1], ARGV[i])
end
return released
