-- Leases work. ARGV: event namespace, stream length, stage, worker, operation, budget, most items, lease ms,
-- most staged tokens, queues… (none for prepare and commit: all that are there) → {json of a lease…}
local stage, worker, op = ARGV[3], ARGV[4], ARGV[5]
local MOST_PARKED, MOST_SUSPECTS = 256, 256
local budget, most, lease_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local mine = key('held', worker)

local function describe(item)
  local id, _, n = string.match(item, '^([^/]+)/([^/]+)/(%d+)$')
  local h = redis.call('HMGET', key('item', item), 'epoch', 'cost', 'attempts', 'suspect', 'hash')
  local t = redis.call('HMGET', key('task', id), 'namespace', 'collection', 'object', 'url', 'config', 'media_type',
    'metadata', 'run', 'generation', 'spec_hash', 'source_sha256', 'kind', 'lane', 'idem', 'fingerprint', 'created')
  local lease = {
    task_id = id, n = tonumber(n), epoch = tonumber(h[1]), cost = tonumber(h[2]), attempts = tonumber(h[3] or 0),
    alone = h[4] and true, namespace = t[1], collection = t[2], object_id = t[3], url = t[4],
    media_type = t[6] or '', metadata = t[7] or '{}', run = tonumber(t[8]), generation = tonumber(t[9] or ''),
    spec_hash = t[10] or nil, source_sha256 = t[11] or nil, input_hash = h[5] or nil, kind = t[12] or 'ingest'
  }
  if stage == 'prepare' then
    lease.url = redis.call('GET', key('url', id)) or t[4]
    lease.config = redis.call('GET', key('config', t[5]))
    lease.lane, lease.idem, lease.fingerprint, lease.created = t[13], t[14] or '', t[15] or '', tonumber(t[16])
  end
  return cjson.encode(lease)
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
local function take(item, queue)
  local epoch = redis.call('INCR', key('epoch'))
  if epoch < now then
    -- A ledger that lost its last second must not give a number out again that somebody still holds.
    epoch = now
    redis.call('SET', key('epoch'), epoch)
  end
  redis.call('HSET', key('item', item), 'state', 'leased', 'epoch', epoch, 'owner', worker, 'taken', now)
  redis.call('ZADD', key('leases'), now + lease_ms, item)
  redis.call('SADD', mine, item)
  counted(stage, queue, -1)
  if stage == 'prepare' then set_state(task_of(item), 'preparing') end
  spent = spent + tonumber(redis.call('HGET', key('item', item), 'cost'))
  table.insert(taken, item)
end

-- Which queues this worker may take from: those that it serves; for prepare those whose encoder has not too much to do.
local may, queues = {}, {}
for i = 10, #ARGV do table.insert(queues, ARGV[i]) end
if stage ~= 'embed' then queues = redis.call('HKEYS', key('waiting', stage)) end
for _, queue in ipairs(queues) do
  local over = stage == 'prepare' and tonumber(redis.call('HGET', key('staged'), queue) or 0) > tonumber(ARGV[9])
  may[queue] = not over
end

-- Where something is paused: items that were in line already are put aside as they come up, some per claim.
local pauses, parked = redis.call('EXISTS', key('paused')) == 1, 0
local function put_aside(item)
  local scope = pauses and parked < MOST_PARKED and scope_of(item)
  if not scope then return false end
  park(item, scope)
  parked = parked + 1
  return true
end

-- One that has lost its row, or its cost, leaves the line, where it would stand before all others: an audit finds its task.
local function damaged(item, flow, queue)
  redis.call('ZREM', flow and key('line', stage, flow, queue) or key('suspects', stage, queue), item)
  if flow then left_line(stage, queue, flow, 0) end
  counted(stage, queue, -1)
end

-- Suspects: as many at once as each of them allows, and none that is no suspect beside them.
local function claim_suspects()
  if redis.call('SCARD', mine) > 0 or #taken > 0 then return false end
  local room = most
  for _, queue in ipairs(queues) do
    for _, item in ipairs(may[queue] and redis.call('ZRANGE', key('suspects', stage, queue), 0, MOST_SUSPECTS - 1) or {}) do
      local h = redis.call('HMGET', key('item', item), 'suspect', 'cost')
      if not h[2] then
        damaged(item, nil, queue)
      elseif not put_aside(item) then
        local group = math.min(room, tonumber(h[1] or 1))
        local fits = #taken < group and (#taken == 0 or spent + tonumber(h[2]) <= budget)
        if fits and not (pauses and scope_of(item)) then
          redis.call('ZREM', key('suspects', stage, queue), item)
          take(item, queue)
          room = group
        end
      end
    end
  end
  return #taken > 0
end

-- The item with the lowest tag that a flow may give: its tag, the item, its queue.
local function head(flow)
  local best, chosen, from
  for _, queue in ipairs(redis.call('SMEMBERS', key('lines', stage, flow))) do
    if may[queue] then
      local items = redis.call('ZRANGE', key('line', stage, flow, queue), 0, 3, 'WITHSCORES')
      for j = 1, #items, 2 do
        local cost = tonumber(redis.call('HGET', key('item', items[j]), 'cost') or '')
        local tag = tonumber(items[j + 1])
        if not cost then
          damaged(items[j], flow, queue)
        elseif #taken == 0 or spent + cost <= budget then
          if not best or tag < best then best, chosen, from = tag, items[j], queue end
          break -- those behind it have higher tags
        end
      end
    end
  end
  return best, chosen, from
end

-- One item of the flow that is furthest behind, past those that have nothing for this worker or nothing that fits.
local function claim_next()
  local vt = key('vt', stage)
  for start = 0, MOST_FLOWS - 1, FLOWS do
    local flows = redis.call('ZRANGE', vt, start, start + FLOWS - 1, 'WITHSCORES')
    for i = 1, #flows, 2 do
      local flow, behind = flows[i], tonumber(flows[i + 1])
      local tag, item, queue = head(flow)
      while item and put_aside(item) do tag, item, queue = head(flow) end
      if item and not (pauses and scope_of(item)) then
        redis.call('ZREM', key('line', stage, flow, queue), item)
        local served = tonumber(redis.call('HGET', key('served', stage), flow) or 0)
        if tag > served then redis.call('HSET', key('served', stage), flow, tag) end
        local virtual = tonumber(redis.call('HGET', key('vtlast', stage), '*') or 0)
        if behind > virtual then redis.call('HSET', key('vtlast', stage), '*', behind) end
        left_line(stage, queue, flow, tonumber(redis.call('HGET', key('item', item), 'cost')) / weight_of(flow))
        take(item, queue)
        return true
      end
    end
    if #flows < 2 * FLOWS then return false end
  end
  return false
end

local function suspects_wait()
  for _, queue in ipairs(queues) do
    if may[queue] and redis.call('EXISTS', key('suspects', stage, queue)) == 1 then return true end
  end
  return false
end

-- A worker that holds a suspect holds nothing else until it is through with it. Suspects take every other turn, so that
-- a pile of them cannot starve the rest; a worker that claims ahead, and so is never free for one, gets nothing when it
-- is their turn, and is free the next time.
local first = redis.call('SRANDMEMBER', mine)
if not (first and redis.call('HGET', key('item', first), 'suspect')) then
  local theirs = suspects_wait() and
    (redis.call('HGET', key('worker', worker), 'owed') or redis.call('INCR', key('turn', stage)) % 2 == 0)
  if theirs and first then
    redis.call('HSET', key('worker', worker), 'owed', 1)
  else
    redis.call('HDEL', key('worker', worker), 'owed')
    if not (theirs and claim_suspects()) then
      while #taken < most and spent < budget and claim_next() do end
      if #taken == 0 then claim_suspects() end
    end
  end
end
redis.call('HSET', key('worker', worker), 'op', op, 'op_items', table.concat(taken, ' '))
redis.call('PEXPIRE', key('worker', worker), 10 * lease_ms + 60000)
redis.call('ZADD', key('workers'), now, worker)
local out = {}
for _, item in ipairs(taken) do table.insert(out, describe(item)) end
return out
