-- Shared by the scripts of deliveries: loaded behind the ledger's _common.lua, in front of each of them.
--
--   endpoints                ZSET  every endpoint → when it was added
--   endpoints:{namespace}    SET   those of a namespace
--   endpoint:{id}            HASH  what it is, and how it fares
--   delivery:{id}:{event}    HASH  one event to one endpoint
--   outgoing:{id}            ZSET  its deliveries that wait → when they are due
--   sending                  ZSET  `id/event` that is leased → when the lease ends
--   sending:{worker}         SET   what a process holds
--   turns                    ZSET  endpoints that may have something due → when they had their last turn
--   asleep                   ZSET  endpoints whose next delivery is due later → when
--   attempts:{id}            LIST  its log, newest first

local GROUP = 'deliver'
local MOST_WAITING = 100000 -- deliveries of one endpoint that wait; then it is paused, and the stream has the rest

local function row(endpoint, event) return key('delivery', endpoint, event) end
local function name_of(endpoint, event) return endpoint .. '/' .. event end
local function parts_of(name) return string.match(name, '^([^/]+)/(.*)$') end

-- Lets an endpoint take its turns again; a paused one has none.
local function wake(endpoint)
  if redis.call('HGET', key('endpoint', endpoint), 'state') ~= 'active' then return end
  redis.call('ZREM', key('asleep'), endpoint)
  redis.call('ZADD', key('turns'), 'NX', tonumber(redis.call('GET', key('turn')) or 0), endpoint)
end

local function pause(endpoint, reason)
  local e = key('endpoint', endpoint)
  if redis.call('HGET', e, 'state') ~= 'active' then return false end
  redis.call('HSET', e, 'state', 'paused', 'reason', reason, 'changed', now)
  redis.call('ZREM', key('turns'), endpoint)
  redis.call('ZREM', key('asleep'), endpoint)
  return true
end

-- Puts an event in line for an endpoint. Without an operation: unless it ever was. With one, which is a replay: anew,
-- once per operation, but not while it is being sent.
local function enqueue(endpoint, event, entry, kind, body, op)
  local d = row(endpoint, event)
  local state = redis.call('HGET', d, 'state')
  if state and (op == '' or state == 'leased' or redis.call('HGET', d, 'op') == op) then return 0 end
  redis.call('DEL', d)
  redis.call('HSET', d, 'state', 'pending', 'attempts', 0, 'entry', entry, 'kind', kind, 'body', body, 'created', now,
    'op', op)
  redis.call('ZADD', key('outgoing', endpoint), now, event)
  wake(endpoint)
  return 1
end

local function unlease(endpoint, event)
  local name = name_of(endpoint, event)
  redis.call('ZREM', key('sending'), name)
  local owner = redis.call('HGET', row(endpoint, event), 'owner')
  if owner then redis.call('SREM', key('sending', owner), name) end
end

local function wait_until(endpoint, event, at)
  redis.call('HSET', row(endpoint, event), 'state', 'pending')
  redis.call('ZADD', key('outgoing', endpoint), at, event)
  wake(endpoint)
end

-- How the lease of an epoch stands: 'leased', 'lost', or what the delivery became when this was told before.
local function standing(endpoint, event, epoch)
  local d = redis.call('HMGET', row(endpoint, event), 'epoch', 'state')
  if d[1] ~= epoch then return 'lost' end
  return d[2]
end

local function note(endpoint, event, ok, status, error, ms, next_at)
  local d = redis.call('HMGET', row(endpoint, event), 'kind', 'attempts', 'entry')
  local line = cjson.encode({
    at = now, event_id = event, kind = d[1], attempt = tonumber(d[2]), entry = d[3], ok = ok, status = status, error = error,
    ms = tonumber(ms), next_at = next_at
  })
  redis.call('LPUSH', key('attempts', endpoint), line)
end
