-- Forgets an endpoint and all that waits for it. ARGV: …, id → 1, or 0 where there is none
local id = ARGV[3]
local namespace = redis.call('HGET', key('endpoint', id), 'namespace')
if not namespace then return 0 end
for _, event in ipairs(redis.call('ZRANGE', key('outgoing', id), 0, -1)) do redis.call('DEL', row(id, event)) end
for _, name in ipairs(redis.call('ZRANGE', key('sending'), 0, -1)) do
  local endpoint, event = parts_of(name)
  if endpoint == id then
    unlease(id, event)
    redis.call('DEL', row(id, event))
  end
end
redis.call('DEL', key('outgoing', id), key('attempts', id), key('endpoint', id))
for _, lines in ipairs({ 'turns', 'asleep', 'endpoints' }) do redis.call('ZREM', key(lines), id) end
redis.call('SREM', key('endpoints', namespace), id)
-- A group that nobody reads would keep the stream from being cut.
if redis.call('ZCARD', key('endpoints')) == 0 then redis.call('XGROUP', 'DESTROY', key('events'), GROUP) end
return 1
