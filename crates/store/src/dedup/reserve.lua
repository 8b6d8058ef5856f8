-- Reserves message ids of one workspace for one run of a process.
-- KEYS[1] the run's pendings in the workspace
-- ARGV[1] owner, as the value of a pending; ARGV[2] lifetime of a pending in ms; ARGV[3] prefix of the message keys, of
-- KEYS[1]'s slot; ARGV[4] fingerprints, of 22 characters each
-- Gives one letter per message id, "r" reserved now, "d" done before, "p" pending, and then the owner of each "p".
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, lifetime, prefix, fingerprints = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local letters = {}
local answers = { '' }
local reserved = {}
for at = 1, #fingerprints, 22 do
  local fingerprint = string.sub(fingerprints, at, at + 21)
  local known = redis.call('SET', prefix .. fingerprint, owner, 'NX', 'GET', 'PX', ARGV[2])
  if not known then
    letters[#letters + 1] = 'r'
    reserved[#reserved + 1] = now
    reserved[#reserved + 1] = fingerprint
  elseif known == 'd' then
    letters[#letters + 1] = 'd'
  else
    letters[#letters + 1] = 'p'
    answers[#answers + 1] = known
  end
end
if #reserved > 0 then
  -- Pendings that expired are of no use to a settlement; without this the set of a long run only grows.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lifetime)
  for first = 1, #reserved, 1000 do
    redis.call('ZADD', KEYS[1], unpack(reserved, first, math.min(first + 999, #reserved)))
  end
  redis.call('PEXPIRE', KEYS[1], lifetime * 2)
end
answers[1] = table.concat(letters)
return answers
