-- Goes on with an endpoint, with what waits for it at once. ARGV: …, id → 1, or 0 where it was not paused
local id = ARGV[3]
local e = key('endpoint', id)
local was = redis.call('HMGET', e, 'state', 'changed')
if was[1] ~= 'paused' then return 0 end
redis.call('HINCRBY', e, 'paused_ms', now - tonumber(was[2]))
redis.call('HSET', e, 'state', 'active', 'changed', now, 'reason', '')
redis.call('HDEL', e, 'failing_since', 'failures')
-- Long past and in the same order: all of it is due.
if redis.call('EXISTS', key('outgoing', id)) == 1 then
  redis.call('ZUNIONSTORE', key('outgoing', id), 1, key('outgoing', id), 'WEIGHTS', 0.001)
  wake(id)
end
return 1
