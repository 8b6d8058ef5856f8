-- Reserving message ids, as `reserve.lua` and `admit.lua` do it; the text of this file stands in front of theirs.

-- One message id, unless somebody has it: "r" reserved now, "d" done before, "p" pending. Adds its letter to `letters`, whom
-- it is pending for to `owners`, and what was reserved to `reserved`, as ZADD takes it.
local function reserve(prefix, fingerprint, owner, lifetime, now, letters, owners, reserved)
  local known = redis.call('SET', prefix .. fingerprint, owner, 'NX', 'GET', 'PX', lifetime)
  if not known then
    letters[#letters + 1] = 'r'
    reserved[#reserved + 1] = now
    reserved[#reserved + 1] = fingerprint
  elseif known == 'd' then
    letters[#letters + 1] = 'd'
  else
    letters[#letters + 1] = 'p'
    owners[#owners + 1] = known
  end
end

-- Puts what was reserved down among the run's pendings.
local function keep_pending(pendings, reserved, lifetime, now)
  if #reserved == 0 then return end
  -- Pendings that expired are of no use to a settlement; without this the set of a long run only grows.
  redis.call('ZREMRANGEBYSCORE', pendings, '-inf', now - lifetime)
  for first = 1, #reserved, 1000 do
    redis.call('ZADD', pendings, unpack(reserved, first, math.min(first + 999, #reserved)))
  end
  redis.call('PEXPIRE', pendings, lifetime * 2)
end

