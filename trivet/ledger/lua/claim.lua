-- Leases work. ARGV: event namespace, stream length, stage, worker, operation, budget, most items, lease ms,
-- most staged tokens, queues… (none for prepare and commit: all that are there) → {json of a lease…}
local stage, worker, op = ARGV[3], ARGV[4], ARGV[5]
local budget, most, lease_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local mine = key('held', worker)

local function describe(item)
  local id, _, n = string.match(item, '^([^/]+)/([^/]+)/(%d+)$')
  local h = redis.call('HMGET', key('item', item), 'epoch', 'cost', 'attempts', 'suspect', 'hash')
  local t = redis.call('HMGET', key('task', id), 'namespace', 'collection', 'object', 'url', 'config', 'media_type',
    'metadata', 'run', 'generation', 'spec_hash', 'source_sha256', 'shards')
  return cjson.encode({
    task_id = id, n = tonumber(n), epoch = tonumber(h[1]), cost = tonumber(h[2]), attempts = tonumber(h[3]),
    alone = h[4] == '1', namespace = t[1], collection = t[2], object_id = t[3],
    url = stage == 'prepare' and (redis.call('GET', key('url', id)) or t[4]) or t[4],
    config = stage == 'prepare' and t[5] or nil, media_type = t[6], metadata = t[7], run = tonumber(t[8]),
    generation = tonumber(t[9] or ''), spec_hash = t[10] or nil, source_sha256 = t[11] or nil, input_hash = h[5] or nil, shards = tonumber(t[12] or '')
  })
end

-- The same operation again (its answer was lost on the way): the same answer, nothing leased twice.
if redis.call('HGET', key('worker', worker), 'op') == op then
  local again = {}
  for item in string.gmatch(redis.call('HGET', key('worker', worker), 'op_items'), '%S+') do
    if redis.call('SISMEMBER', mine, item) == 1 then table.insert(again, describe(item)) end
  end
  return again
end

local taken, spent = {}, 0
local function take(item)
  local epoch = redis.call('INCR', key('epoch'))
  redis.call('HSET', key('item', item), 'state', 'leased', 'epoch', epoch, 'owner', worker)
  redis.call('ZADD', key('leases'), now + lease_ms, item)
  redis.call('SADD', mine, item)
  if stage == 'prepare' then set_state(task_of(item), 'preparing') end
  spent = spent + tonumber(redis.call('HGET', key('item', item), 'cost'))
  table.insert(taken, item)
end

local function claim_suspect(queue)
  if redis.call('SCARD', mine) > 0 or #taken > 0 then return false end
  local item = redis.call('LPOP', key('suspects', stage, queue))
  if item then take(item) end
  return item
end

-- One item of the flow that is furthest behind; a little past those whose next item does not fit the budget.
local function claim_next(queue)
  local vt = key('vt', stage, queue)
  local flows = redis.call('ZRANGE', vt, 0, MISFITS - 1, 'WITHSCORES')
  for i = 1, #flows, 2 do
    local flow, behind = flows[i], tonumber(flows[i + 1])
    local members = key('flow', stage, queue, flow)
    local items = redis.call('ZRANGE', members, 0, #taken == 0 and 0 or 3, 'WITHSCORES')
    for j = 1, #items, 2 do
      local item = items[j]
      local cost = tonumber(redis.call('HGET', key('item', item), 'cost'))
      if #taken == 0 or spent + cost <= budget then
        redis.call('ZREM', members, item)
        redis.call('HSET', key('served', stage, queue), flow, items[j + 1])
        redis.call('HSET', key('vtlast', stage, queue), '*', behind)
        local after = behind + cost / weight_of(flow)
        if redis.call('EXISTS', members) == 1 then
          redis.call('ZADD', vt, after, flow)
        else
          redis.call('ZREM', vt, flow)
          redis.call('HSET', key('vtlast', stage, queue), flow, after)
        end
        take(item)
        return true
      end
    end
  end
  return false
end

local queues = {}
for i = 10, #ARGV do table.insert(queues, ARGV[i]) end
if stage ~= 'embed' then
  queues = redis.call('SMEMBERS', key('queues', stage))
  table.sort(queues)
end
-- A worker that holds a suspect holds nothing else until it is through with it.
local first = redis.call('SRANDMEMBER', mine)
local with_suspect = first and redis.call('HGET', key('item', first), 'suspect') == '1'
if not with_suspect then
  local turn = redis.call('INCR', key('turn', stage))
  for i = 1, #queues do
    local queue = queues[(turn + i) % #queues + 1]
    local staged = tonumber(redis.call('HGET', key('staged'), queue) or 0)
    if stage ~= 'prepare' or staged <= tonumber(ARGV[9]) then
      -- Suspects take every other turn, so that a pile of them cannot starve the rest.
      if turn % 2 == 0 and claim_suspect(queue) then break end
      while #taken < most and spent < budget and claim_next(queue) do end
      if #taken == 0 and claim_suspect(queue) then break end
      if #taken >= most or spent >= budget then break end
    end
  end
end
redis.call('HSET', key('worker', worker), 'op', op, 'op_items', table.concat(taken, ' '))
redis.call('PEXPIRE', key('worker', worker), 10 * lease_ms + 60000)
redis.call('ZADD', key('workers'), now, worker)
local out = {}
for _, item in ipairs(taken) do table.insert(out, describe(item)) end
return out
