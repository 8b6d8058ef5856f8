-- Reserves message ids of one workspace for one run of a process.
-- KEYS[1] the run's pendings in the workspace
-- ARGV[1] owner, as the value of a pending; ARGV[2] lifetime of a pending in ms; ARGV[3] prefix of the message keys, of
-- KEYS[1]'s slot; ARGV[4] fingerprints, of 22 characters each
-- Gives one letter per message id, "r" reserved now, "d" done before, "p" pending, and then the owner of each "p".
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, lifetime, prefix, fingerprints = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local letters, answers, reserved = {}, { '' }, {}
for at = 1, #fingerprints, 22 do
  local fingerprint = string.sub(fingerprints, at, at + 21)
  reserve(prefix, fingerprint, owner, lifetime, now, letters, answers, reserved)
end
keep_pending(KEYS[1], reserved, lifetime, now)
answers[1] = table.concat(letters)
return answers
