-- Leases deliveries that are due, endpoint by endpoint in turn. ARGV: …, worker, operation, most, most per endpoint,
-- lease ms → {{endpoint's fields}, {delivery's fields}, event id, …}
local worker, op, most, cap, lease_ms = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local MOST_LOOKED_AT = 1024
local ILL = 3 -- an endpoint that failed so often in a row is tried one delivery at a time
local mine, sender = key('sending', worker), key('sender', worker)

local function described(names)
  local out = {}
  for _, name in ipairs(names) do
    local endpoint, event = parts_of(name)
    table.insert(out, redis.call('HGETALL', key('endpoint', endpoint)))
    table.insert(out, redis.call('HGETALL', row(endpoint, event)))
    table.insert(out, event)
  end
  return out
end

-- The same operation again (its answer was lost on the way): the same answer, nothing leased twice.
if redis.call('HGET', sender, 'op') == op then
  local again = {}
  for name in string.gmatch(redis.call('HGET', sender, 'names'), '[^\n]+') do
    if redis.call('SISMEMBER', mine, name) == 1 then table.insert(again, name) end
  end
  return described(again)
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', key('sending'), '-inf', now, 'LIMIT', 0, 256)) do
  local endpoint, event = parts_of(name)
  unlease(endpoint, event)
  if redis.call('EXISTS', row(endpoint, event)) == 1 then
    -- Again at once; one that ends its process again and again is tried less and less.
    local times = redis.call('HINCRBY', row(endpoint, event), 'expiries', 1)
    wait_until(endpoint, event, now + lease_ms * (2 ^ math.min(times - 1, 10) - 1))
  end
end

for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', key('asleep'), '-inf', now, 'LIMIT', 0, MOST_LOOKED_AT)) do
  wake(endpoint)
end

local held = {}
for _, name in ipairs(redis.call('SMEMBERS', mine)) do
  local endpoint = parts_of(name)
  held[endpoint] = (held[endpoint] or 0) + 1
end

local function take(endpoint, event)
  local d = row(endpoint, event)
  local epoch = redis.call('INCR', key('epoch'))
  if epoch < now then
    epoch = now
    redis.call('SET', key('epoch'), epoch)
  end
  redis.call('ZREM', key('outgoing', endpoint), event)
  redis.call('HSET', d, 'state', 'leased', 'epoch', epoch, 'owner', worker)
  redis.call('HINCRBY', d, 'attempts', 1)
  redis.call('ZADD', key('sending'), now + lease_ms, name_of(endpoint, event))
  redis.call('SADD', mine, name_of(endpoint, event))
  redis.call('ZADD', key('turns'), redis.call('INCR', key('turn')), endpoint)
  held[endpoint] = (held[endpoint] or 0) + 1
end

local taken = {}
local function one_of(endpoint)
  local failures = tonumber(redis.call('HGET', key('endpoint', endpoint), 'failures') or 0)
  if (held[endpoint] or 0) >= (failures >= ILL and 1 or cap) then return false end
  local head = redis.call('ZRANGE', key('outgoing', endpoint), 0, 0, 'WITHSCORES')
  if head[1] and tonumber(head[2]) <= now then
    take(endpoint, head[1])
    table.insert(taken, name_of(endpoint, head[1]))
    return true
  end
  redis.call('ZREM', key('turns'), endpoint)
  if head[1] then redis.call('ZADD', key('asleep'), head[2], endpoint) end
  return false
end

local some = true
while some and #taken < most do
  some = false
  for _, endpoint in ipairs(redis.call('ZRANGE', key('turns'), 0, MOST_LOOKED_AT - 1)) do
    if #taken < most and one_of(endpoint) then some = true end
  end
end
redis.call('HSET', sender, 'op', op, 'names', table.concat(taken, '\n'))
redis.call('PEXPIRE', sender, 10 * lease_ms + 60000)
return described(taken)
