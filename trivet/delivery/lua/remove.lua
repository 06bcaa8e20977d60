-- Forgets an endpoint and all that waits for it, a page at a time: a hundred thousand deliveries at once would hold up
-- the ledger for seconds. ARGV: …, id, most deliveries → 1 if there is more to do, else 0
local id, most = ARGV[3], tonumber(ARGV[4])
local namespace = redis.call('HGET', key('endpoint', id), 'namespace')
if not namespace then return 0 end
pause(id, 'It is being removed.')
local events = redis.call('ZRANGE', key('outgoing', id), 0, most - 1)
for _, event in ipairs(events) do
  redis.call('DEL', row(id, event))
  redis.call('ZREM', key('outgoing', id), event)
end
if #events == most then return 1 end
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
return 0
