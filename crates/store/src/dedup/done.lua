-- Turns message ids of one workspace into done, whatever was known about them: their events are in a journal.
-- KEYS[1] the run's pendings in the workspace
-- ARGV[1] lifetime in ms; ARGV[2] prefix of the message keys, of KEYS[1]'s slot; ARGV[3] fingerprints, of 22 characters
-- each
local lifetime, prefix, fingerprints = ARGV[1], ARGV[2], ARGV[3]
local done = {}
for at = 1, #fingerprints, 22 do
  local fingerprint = string.sub(fingerprints, at, at + 21)
  redis.call('SET', prefix .. fingerprint, 'd', 'PX', lifetime)
  done[#done + 1] = fingerprint
end
for first = 1, #done, 1000 do
  redis.call('ZREM', KEYS[1], unpack(done, first, math.min(first + 999, #done)))
end
return #done
