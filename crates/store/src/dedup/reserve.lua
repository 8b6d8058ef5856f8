-- Reserves message ids of one workspace for one run of a process.
-- KEYS[1] the run's pendings in the workspace; KEYS[2..] one key per message id
-- ARGV[1] owner, as the value of a pending; ARGV[2] lifetime of a pending in ms; ARGV[3..] fingerprints
-- Gives per message id: "" reserved now, "d" done before, "p<owner>" pending.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lifetime = tonumber(ARGV[2])
local answers = {}
local reserved = {}
for i = 2, #KEYS do
  local known = redis.call('GET', KEYS[i])
  if known then
    answers[i - 1] = known
  else
    redis.call('SET', KEYS[i], ARGV[1], 'PX', lifetime)
    answers[i - 1] = ''
    reserved[#reserved + 1] = now
    reserved[#reserved + 1] = ARGV[i + 1]
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
return answers
