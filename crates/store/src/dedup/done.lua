-- Turns message ids of one workspace into done, whatever was known about them: their events are in a journal.
-- KEYS[1] the run's pendings in the workspace; KEYS[2..] one key per message id
-- ARGV[1] lifetime in ms; ARGV[2..] fingerprints
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], 'd', 'PX', ARGV[1])
  redis.call('ZREM', KEYS[1], ARGV[i])
end
return #KEYS - 1
