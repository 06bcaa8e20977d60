-- Looks at tasks, each with its object and its work items. ARGV: …, repair, tasks… → {json of a finding…}
-- Repair is 0, 1, or 2: a task that waits is started only then, since its object's row is right once all others are.
local repair = ARGV[3] ~= '0'
local OPEN = { waiting = true, queued = true, preparing = true, embedding = true, committing = true }
local HOME = { leased = 'leases', due = 'due', parked = 'parked' }
local out = {}

-- A finding that can be repaired is, where that is asked for.
local function found(code, where, detail, fix)
  table.insert(out, cjson.encode({ code = code, where = where, detail = detail, repaired = repair and fix ~= nil }))
  if repair and fix then fix() end
end

-- A task that has no state will get it back. Whoever removes what an object has left keeps it shut under a name of its own.
local function live(other)
  if not other then return false end
  return redis.call('EXISTS', key('task', other)) == 1 and not TERMINAL[redis.call('HGET', key('task', other), 'state') or ''] or
    redis.call('EXISTS', key('purge_shut', other)) == 1
end

local function item_key(id, stage, n) return id .. '/' .. stage .. '/' .. n end
local function is_there(id, stage, n) return redis.call('EXISTS', key('item', item_key(id, stage, n))) == 1 end

-- The places in which an item stands; `home` is the one in which its state says that it does.
local function places(item, h)
  local home, at, right = HOME[h.state] or (h.suspect and 'suspects' or 'line'), {}, false
  local function look(name, there)
    if not there then return end
    table.insert(at, name)
    if name == home then right = true end
  end
  look('line', redis.call('ZSCORE', key('line', h.stage, h.flow, h.queue), item))
  look('suspects', redis.call('ZSCORE', key('suspects', h.stage, h.queue), item))
  look('leases', redis.call('ZSCORE', key('leases'), item))
  look('due', redis.call('ZSCORE', key('due'), item))
  look('parked', h.parked and redis.call('SISMEMBER', key('parked', h.parked), item) == 1)
  if h.state == 'leased' and not (h.owner and redis.call('SISMEMBER', key('held', h.owner), item) == 1) then right = false end
  return at, right
end

-- Whoever holds it keeps it; else it waits again, and a holder that nobody knows of is fenced.
local function put_right(item, h, right)
  unqueue(item)
  unqueue(item)
  redis.call('ZREM', key('due'), item)
  if h.parked then redis.call('SREM', key('parked', h.parked), item) end
  if h.state == 'leased' and right then return end
  unlease(item)
  push(item, false)
end

-- Whether there is such an item; one that stands in no place, in several or in a wrong one is told of.
local function check_item(id, stage, n)
  local item, h = item_key(id, stage, n), {}
  local names = { 'stage', 'queue', 'flow', 'tag', 'cost', 'state', 'suspect', 'parked', 'owner' }
  local values = redis.call('HMGET', key('item', item), unpack(names))
  for i, name in ipairs(names) do h[name] = values[i] or nil end
  if not (h.stage and h.queue and h.flow and h.tag and h.cost and h.state) then
    if is_there(id, stage, n) then
      found('item_damaged', item, 'fields of it are gone', function() redis.call('DEL', key('item', item)) end)
    end
    return false
  end
  local at, right = places(item, h)
  if #at ~= 1 or not right then
    local code = #at == 0 and 'item_lost' or #at > 1 and 'item_doubled' or 'item_misplaced'
    local where = #at == 0 and 'nowhere' or table.concat(at, ' and ')
    found(code, item, 'it is ' .. h.state .. ' and stands in ' .. where, function() put_right(item, h, right) end)
  end
  return true
end

-- An item that lacks what says where it stands is only removed; what is left of it in lines is found there.
local function whole(item)
  local h = redis.call('HMGET', key('item', item), 'stage', 'queue', 'flow', 'cost')
  if h[1] and h[2] and h[3] and h[4] then return true end
  redis.call('DEL', key('item', item))
  return false
end

local function extra(id, stage, n, why)
  local item = item_key(id, stage, n)
  found('item_extra', item, why, function()
    if not whole(item) then return end
    local cost = redis.call('HGET', key('item', item), 'cost')
    forget(item)
    if stage == 'embed' and cost then staged(redis.call('HGET', key('task', id), 'model'), -tonumber(cost)) end
  end)
end

local function need(id, stage, state, queue, cost)
  if check_item(id, stage, 0) or is_there(id, stage, 0) then return end
  found('no_next_step', id, 'it is ' .. state .. ' and has no ' .. stage .. ' item', queue and function()
    create(id, stage, queue, 0, cost, 0)
  end or nil)
end

local function check_shards(id, t, shards)
  local written, all = {}, true
  for _, n in ipairs(redis.call('HKEYS', key('parts', id))) do
    local number = tonumber(n)
    if number and number >= 0 and number < shards and n == tostring(math.floor(number)) then
      written[number] = true
    else
      found('part_extra', id, 'it has a part of shard ' .. n .. ' and ' .. shards .. ' shards', function()
        redis.call('HDEL', key('parts', id), n)
      end)
    end
  end
  for n = 0, shards - 1 do
    if written[n] then
      if is_there(id, 'embed', n) then extra(id, 'embed', n, 'the shard is written already') end
    else
      all = false
      if not (check_item(id, 'embed', n) or is_there(id, 'embed', n)) then
        found('shard_lost', item_key(id, 'embed', n), 'the shard is neither written nor waits')
      end
    end
  end
  if all then
    need(id, 'commit', t.state, 'any', 1)
  elseif is_there(id, 'commit', 0) then
    extra(id, 'commit', 0, 'not all shards are written')
  end
end

local function check_open(id, t)
  if redis.call('ZSCORE', key('terminal'), id) then
    found('retained_early', id, 'it is ' .. t.state .. ' and stands among the ended', function()
      redis.call('ZREM', key('terminal'), id)
      redis.call('ZREM', key('dead'), id)
    end)
  end
  local object = object_key(id)
  local o = redis.call('HMGET', object, 'active', 'waiting')
  local active, waiting = o[1] or nil, o[2] or nil
  if t.state == 'waiting' then
    if waiting == id and active ~= id and live(active) then return end
    found('stranded', id, 'it waits, and no task that ends will start it', ARGV[3] ~= '1' and function()
      if active == id or not live(active) then
        redis.call('HDEL', object, 'active')
        if waiting == id then redis.call('HDEL', object, 'waiting') end
        start(id)
      elseif not live(waiting) then
        redis.call('HSET', object, 'waiting', id)
      else
        finish(id, 'superseded', '"superseded_by":"' .. waiting .. '"')
      end
    end or nil)
    return
  end
  if active ~= id then
    found('object_row', id, 'it is ' .. t.state .. ' and its object names ' .. (active or 'no task') .. ' as active',
      not live(active) and function()
        redis.call('HSET', object, 'active', id)
        if waiting == id then redis.call('HDEL', object, 'waiting') end
      end or nil)
  end
  if t.kind ~= 'delete' and redis.call('EXISTS', key('config', t.config or '')) == 0 then
    found('no_config', id, 'the pipeline that it was accepted with is gone')
  end
  local shards = tonumber(t.shards or '')
  if t.kind ~= 'delete' and not shards then
    need(id, 'prepare', t.state, t.model, tonumber(t.cost))
    return
  end
  if is_there(id, 'prepare', 0) then extra(id, 'prepare', 0, 'the task is past its preparation') end
  if shards then check_shards(id, t, shards) else need(id, 'commit', t.state, 'any', 1) end
end

local function check_ended(id, t)
  local left = is_there(id, 'prepare', 0) or is_there(id, 'commit', 0)
  for n = 0, (tonumber(t.shards or '') or 0) - 1 do left = left or is_there(id, 'embed', n) end
  if left then
    found('item_extra', id, 'it is ' .. t.state .. ' and has work items', function()
      whole(item_key(id, 'prepare', 0))
      whole(item_key(id, 'commit', 0))
      for n = 0, (tonumber(t.shards or '') or 0) - 1 do whole(item_key(id, 'embed', n)) end
      clear(id)
    end)
  end
  if redis.call('EXISTS', key('parts', id), key('done', id)) > 0 then
    found('part_extra', id, 'it is ' .. t.state .. ' and its parts are still counted', function()
      redis.call('DEL', key('parts', id), key('done', id))
    end)
  end
  if not (t.ended and redis.call('ZSCORE', key('terminal'), id)) then
    found('not_retained', id, 'it is ' .. t.state .. ' and would stay for ever', function()
      redis.call('HSETNX', key('task', id), 'ended', now)
      redis.call('ZADD', key('terminal'), 'NX', redis.call('HGET', key('task', id), 'ended'), id)
    end)
  end
  if t.state == 'failed' and not redis.call('ZSCORE', key('dead'), id) then
    found('not_dead_listed', id, 'it is failed and not on the dead-letter list', function()
      redis.call('ZADD', key('dead'), t.ended or now, id)
    end)
  end
end

-- The state that a task with none must be in; nil where only its event can say.
local function derived(id, t)
  if t.ended or redis.call('ZSCORE', key('terminal'), id) then return nil end
  local o = redis.call('HMGET', object_key(id), 'active', 'waiting')
  if o[2] == id and o[1] ~= id then return 'waiting' end
  if is_there(id, 'commit', 0) then return 'committing' end
  if t.shards then return 'embedding' end
  return redis.call('HGET', key('item', item_key(id, 'prepare', 0)), 'state') == 'leased' and 'preparing' or 'queued'
end

for i = 4, #ARGV do
  local id, t = ARGV[i], {}
  local names = { 'namespace', 'collection', 'object', 'state', 'kind', 'shards', 'model', 'config', 'ended', 'cost', 'created',
    'lane', 'run' }
  local values = redis.call('HMGET', key('task', id), unpack(names))
  for n, name in ipairs(names) do t[name] = values[n] or nil end
  if not (t.namespace and t.collection and t.object and t.lane and t.run) then
    if redis.call('EXISTS', key('task', id)) == 1 then found('task_damaged', id, 'fields of it are gone') end
  else
    if not (redis.call('ZSCORE', key('tasks', t.namespace), id) and redis.call('SISMEMBER', key('namespaces'), t.namespace) == 1) then
      found('unlisted', id, 'no list of tasks has it', function()
        redis.call('ZADD', key('tasks', t.namespace), t.created or now, id)
        redis.call('SADD', key('namespaces'), t.namespace)
      end)
    end
    if not (OPEN[t.state] or TERMINAL[t.state]) then
      local state = derived(id, t)
      found('no_state', id, 'its state is ' .. (t.state or 'gone'), state and function()
        redis.call('HSET', key('task', id), 'state', state)
        t.state = state
      end or nil)
    end
    if OPEN[t.state] then check_open(id, t) elseif TERMINAL[t.state] then check_ended(id, t) end
  end
end
return out
