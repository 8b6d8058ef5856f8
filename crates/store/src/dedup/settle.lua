-- Turns those message ids of one workspace into done that an earlier run reserved: the journal has them.
-- KEYS[1] the earlier run's pendings in the workspace; KEYS[2..] one key per message id
-- ARGV[1] the earlier owner, as the value of a pending; ARGV[2] lifetime in ms; ARGV[3..] fingerprints
local settled = 0
for i = 2, #KEYS do
  if redis.call('ZREM', KEYS[1], ARGV[i + 1]) == 1 and redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('SET', KEYS[i], 'd', 'PX', ARGV[2])
    settled = settled + 1
  end
end
return settled
