-- Finds what nobody looks after. ARGV: …, lease ms, most expiries, crash error json, most per kind, retention ms,
-- events that the stream keeps → {due, expired, failed, retained away, bells…}
local lease_ms, cap, error, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local due, expired, failed, dropped = 0, 0, 0, 0

for _, item in ipairs(redis.call('ZRANGEBYSCORE', key('due'), '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', key('due'), item)
  if redis.call('EXISTS', key('item', item)) == 1 then
    push(item, false)
    due = due + 1
  end
end

-- While the ledger was away nobody could keep a lease. If no sweep came by for half a lease, that is what it looks
-- like, and every holder gets another lease's time to be heard of.
local last = tonumber(redis.call('GET', key('swept')) or now)
redis.call('SET', key('swept'), now)
redis.call('SET', key('bell_ttl'), math.floor(lease_ms * 1.5))
if now - last > lease_ms / 2 then redis.call('SET', key('grace'), '1', 'PX', lease_ms) end
local graceful = redis.call('EXISTS', key('grace')) == 1

-- Whether a process died with the one that had started it: then something outside killed them, not what they worked on.
-- A child that its work kills leaves a parent, which starts another one.
local function orphaned(worker)
  local told = redis.call('HGET', key('worker', worker), 'info')
  local parent = told and cjson.decode(told).parent
  if type(parent) ~= 'string' then return false end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), now - lease_ms / 2, '+inf')) do
    local known = redis.call('HGET', key('worker', other), 'info')
    if known and cjson.decode(known).parent == parent then return false end
  end
  return true
end

-- An expiry among others charges nobody but makes all of them suspects, which are leased a quarter at a time, until one
-- is left alone. That one is charged: in full, or a quarter where its worker did not die alone.
local function expire(item, group, dead, charge)
  expired = expired + 1
  unlease(item)
  if redis.call('EXISTS', key('item', item)) == 0 then return end
  if dead then redis.call('HSET', key('item', item), 'suspect', math.ceil(group / 4)) end
  if dead and group == 1 then
    redis.call('HINCRBY', key('item', item), 'expiries', 1)
    if redis.call('HINCRBY', key('item', item), 'charged', charge) >= 4 * cap then
      redis.call('HSET', key('task', task_of(item)), 'error', error)
      finish(task_of(item), 'failed', '"error":' .. error, true)
      failed = failed + 1
      return
    end
  end
  push(item, false)
end

for _, item in ipairs(graceful and {} or redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, limit)) do
  local owner = redis.call('HGET', key('item', item), 'owner')
  if not owner then
    redis.call('ZREM', key('leases'), item)
  else
    local seen = tonumber(redis.call('ZSCORE', key('workers'), owner) or 0)
    if seen + lease_ms <= now then
      -- The worker is gone, so all that it held is: judged together, before the first is taken away.
      local group = redis.call('SMEMBERS', key('held', owner))
      local charge = orphaned(owner) and 1 or 4
      for _, other in ipairs(group) do expire(other, #group, true, charge) end
      redis.call('DEL', key('held', owner))
    else
      expire(item, 1, false, 0)
    end
  end
end

for _, worker in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now - 3 * lease_ms, 'LIMIT', 0, limit)) do
  if redis.call('SCARD', key('held', worker)) == 0 then
    redis.call('ZREM', key('workers'), worker)
    for _, stage in ipairs({ 'prepare', 'embed', 'commit' }) do redis.call('HDEL', key('slots', stage), worker) end
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('terminal'), '-inf', now - tonumber(ARGV[7]), 'LIMIT', 0, limit)) do
  local t = redis.call('HMGET', key('task', id), 'namespace', 'state')
  if t[1] then
    -- S3 knows the object's generations: its row is only needed while a task of it runs or waits.
    local o = object_key(id)
    local busy = redis.call('HMGET', o, 'active', 'waiting')
    if not busy[1] and not busy[2] then redis.call('DEL', o) end
  end
  redis.call('DEL', key('task', id))
  redis.call('ZREM', key('terminal'), id)
  redis.call('ZREM', key('dead'), id)
  if t[1] then
    redis.call('ZREM', key('tasks', t[1]), id)
    redis.call('HINCRBY', key('states'), t[2], -1)
  end
  dropped = dropped + 1
end

-- A resume that was cut short is finished here.
for _, scope in ipairs(redis.call('SMEMBERS', key('parkings'))) do
  if redis.call('HEXISTS', key('paused'), scope) == 0 then unpark(scope, limit) end
end

-- The stream is cut to its length, and never where a consumer group has still to read or to acknowledge.
local function oldest_needed()
  local oldest
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key('events'))) do
    local facts = {}
    for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
    local first = redis.call('XPENDING', key('events'), facts.name)[2] or facts['last-delivered-id']
    if not oldest or before(first, oldest) then oldest = first end
  end
  return oldest
end

-- Each sweep marks how many events had been written up to which id, so that the id to cut at needs no counting.
if redis.call('EXISTS', key('events')) == 1 then
  local facts = {}
  local answer = redis.call('XINFO', 'STREAM', key('events'))
  for i = 1, #answer, 2 do facts[answer[i]] = answer[i + 1] end
  local added, newest = facts['entries-added'], facts['last-generated-id']
  redis.call('ZADD', key('marks'), added, newest)
  local cut = redis.call('ZREVRANGEBYSCORE', key('marks'), added - tonumber(ARGV[8]), '-inf', 'LIMIT', 0, 1)[1]
  if cut then
    redis.call('ZREMRANGEBYSCORE', key('marks'), '-inf', '(' .. redis.call('ZSCORE', key('marks'), cut))
    local needed = oldest_needed()
    if needed and before(needed, cut) then cut = needed end
    redis.call('XTRIM', key('events'), 'MINID', '~', cut)
  end
end

for _, stage in ipairs({ 'prepare', 'embed', 'commit' }) do
  for _, queue in ipairs(redis.call('HKEYS', key('waiting', stage))) do ring(stage, queue) end
end
return { due, expired, failed, dropped, unpack(bells) }
