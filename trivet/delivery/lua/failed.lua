-- The endpoint has not taken the event. ARGV: …, endpoint, event, epoch, status, error, ms, delay ms, patience ms,
-- reason to pause it at once or '', ms for which what is given up is kept, length of the log
-- → {what the delivery is now or 'lost', 1 if the endpoint was paused for this}
local endpoint, event = ARGV[3], ARGV[4]
local is = standing(endpoint, event, ARGV[5])
if is ~= 'leased' then return { is, 0 } end
local delay, patience = tonumber(ARGV[9]), tonumber(ARGV[10])
local d, e = row(endpoint, event), key('endpoint', endpoint)
unlease(endpoint, event)
redis.call('HSET', d, 'status', ARGV[6], 'error', ARGV[7])
redis.call('HINCRBY', e, 'failures', 1)
redis.call('HSETNX', e, 'failing_since', now)

local paused = 0
local reason = ARGV[11]
if reason == '' and now - tonumber(redis.call('HGET', e, 'failing_since')) >= patience then
  reason = string.format('It has taken nothing for %g h.', patience / 3600000)
end
if reason ~= '' and pause(endpoint, reason) then paused = 1 end

-- Trying is what counts: not the time before the first attempt failed, and not while the endpoint was paused. An endpoint
-- that takes nothing has failed for at least as long, so it is paused before anything is given up.
if redis.call('HSETNX', d, 'first_failed', now) == 1 then
  redis.call('HSET', d, 'paused_before', redis.call('HGET', e, 'paused_ms') or 0)
end
local function tried_for()
  local t = redis.call('HMGET', d, 'first_failed', 'paused_before')
  return now - tonumber(t[1]) - (tonumber(redis.call('HGET', e, 'paused_ms') or 0) - tonumber(t[2]))
end

local next_at = nil
if redis.call('HGET', e, 'state') == 'paused' then
  next_at = now + delay
elseif tried_for() < patience then
  next_at = now + math.min(delay, patience - tried_for())
end
note(endpoint, event, false, ARGV[6], ARGV[7], ARGV[8], next_at)
redis.call('LTRIM', key('attempts', endpoint), 0, tonumber(ARGV[13]) - 1)
if next_at then
  wait_until(endpoint, event, next_at)
  return { 'pending', paused }
end
redis.call('HSET', d, 'state', 'given_up')
redis.call('PEXPIRE', d, ARGV[12])
return { 'given_up', paused }
