-- Shared by all ledger scripts, after _common.lua: who waits, and in which order.

-- ------------------------------------------------------------------ queues: start-time fair queueing
-- (Goyal, Vin, Cheng 1996), twice: flows (lane, namespace) share a stage by weight, over all its queues; the tasks of
-- a flow share it by tags. Keys: vt:STAGE flow → virtual time while it waits; vtlast:STAGE the same of those that do
-- not ('*' is the stage's own); served:STAGE flow → highest tag that was served; line:STAGE:FLOW:QUEUE item → tag;
-- lines:STAGE:FLOW the queues in which the flow waits; waiting:STAGE queue → items that wait, suspects counted.

local function step(item)
  local h = redis.call('HMGET', key('item', item), 'stage', 'queue', 'flow', 'tag', 'suspect', 'cost')
  return h[1], h[2], h[3], h[4], h[5] and true, tonumber(h[6] or 0)
end

local function counted(stage, queue, n)
  if redis.call('HINCRBY', key('waiting', stage), queue, n) <= 0 then redis.call('HDEL', key('waiting', stage), queue) end
end

-- `back`: the item was leased and not worked on, so its flow gets back what the claim cost it.
local function push(item, back)
  local stage, queue, flow, tag, suspect, cost = step(item)
  -- A server that throws keys away may have taken its row: then its task has no next step, which an audit finds.
  if not (stage and queue and flow and tag) then return end
  redis.call('HSET', key('item', item), 'state', 'pending', 'epoch', 0)
  redis.call('HDEL', key('item', item), 'parked')
  local refund = back and cost / weight_of(flow) or 0
  local vt, last = key('vt', stage), key('vtlast', stage)
  if suspect then
    redis.call('ZADD', key('suspects', stage, queue), tag, item)
  else
    redis.call('ZADD', key('line', stage, flow, queue), tag, item)
    redis.call('SADD', key('lines', stage, flow), queue)
    if redis.call('ZSCORE', vt, flow) then
      redis.call('ZINCRBY', vt, -refund, flow)
    else
      local v = redis.call('HMGET', last, '*', flow)
      redis.call('ZADD', vt, math.max(tonumber(v[1] or 0), tonumber(v[2] or 0) - refund), flow)
      redis.call('HDEL', last, flow)
    end
  end
  counted(stage, queue, 1)
  ring(stage, queue)
end

-- After an item left its line: the line, and the flow with its last one, may be empty now. `spent` is charged.
local function left_line(stage, queue, flow, spent)
  local vt = key('vt', stage)
  if redis.call('EXISTS', key('line', stage, flow, queue)) == 0 then redis.call('SREM', key('lines', stage, flow), queue) end
  if redis.call('EXISTS', key('lines', stage, flow)) == 1 then
    if spent ~= 0 then redis.call('ZINCRBY', vt, spent, flow) end
  else
    redis.call('HSET', key('vtlast', stage), flow, tonumber(redis.call('ZSCORE', vt, flow) or 0) + spent)
    redis.call('ZREM', vt, flow)
  end
end

local function unqueue(item)
  local stage, queue, flow = step(item)
  if not stage then return end
  if redis.call('ZREM', key('line', stage, flow, queue), item) == 1 then
    left_line(stage, queue, flow, 0)
    counted(stage, queue, -1)
  elseif redis.call('ZREM', key('suspects', stage, queue), item) == 1 then
    counted(stage, queue, -1)
  end
end

-- ------------------------------------------------------------------ pauses
-- paused: scope (`namespace` or `namespace/collection`) → why; parked:SCOPE the items that wait for it to be resumed;
-- parkings: the scopes that have some. A parked item keeps its tag, and so its place.

local function scope_of(item)
  local t = redis.call('HMGET', key('task', string.match(item, '^([^/]+)/')), 'namespace', 'collection')
  if not t[1] then return nil end
  if redis.call('HEXISTS', key('paused'), t[1]) == 1 then return t[1] end
  local scope = t[1] .. '/' .. t[2]
  if redis.call('HEXISTS', key('paused'), scope) == 1 then return scope end
  return nil
end

local function park(item, scope)
  unqueue(item)
  redis.call('HSET', key('item', item), 'state', 'parked', 'parked', scope)
  redis.call('SADD', key('parked', scope), item)
  redis.call('SADD', key('parkings'), scope)
end

local function unpark(scope, limit)
  for _, item in ipairs(redis.call('SPOP', key('parked', scope), limit)) do push(item, false) end
  local left = redis.call('SCARD', key('parked', scope))
  if left == 0 then redis.call('SREM', key('parkings'), scope) end
  return left
end

-- `ahead`: cost of the same task's items before this one, so that a big task does not hold up a small one.
local function create(task, stage, queue, n, cost, ahead, hash)
  local t = redis.call('HMGET', key('task', task), 'lane', 'namespace')
  local flow = flow_of(t[1], t[2])
  local item = task .. '/' .. stage .. '/' .. n
  local served = tonumber(redis.call('HGET', key('served', stage), flow) or 0)
  redis.call('HSET', key('item', item), 'stage', stage, 'queue', queue, 'flow', flow, 'tag', served + ahead + cost,
    'cost', cost)
  if hash then redis.call('HSET', key('item', item), 'hash', hash) end
  push(item, false)
end
