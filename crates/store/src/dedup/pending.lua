-- Reserving message ids and marking them done, as `reserve.lua`, `done.lua` and `admit.lua` do it; the text of this file stands
-- in front of theirs. Fingerprints have 22 characters each.

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

-- Marks ids done, whatever was known about them; gives how many there are.
local function mark_done(pendings, prefix, fingerprints, lifetime)
  local done = {}
  for at = 1, #fingerprints, 22 do
    local fingerprint = string.sub(fingerprints, at, at + 21)
    redis.call('SET', prefix .. fingerprint, 'd', 'PX', lifetime)
    done[#done + 1] = fingerprint
  end
  for first = 1, #done, 1000 do
    redis.call('ZREM', pendings, unpack(done, first, math.min(first + 999, #done)))
  end
  return #done
end

