-- Shared by all ledger scripts: loaded in front of each. KEYS[1] is the prefix of every key.
-- Time is Redis' own; a worker's clock decides nothing here.

local P = KEYS[1]
local function key(...) return P .. table.concat({...}, ':') end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) -- milliseconds

local LANES = { interactive = { '0', 64 }, normal = { '1', 8 }, bulk = { '2', 1 } }
local FLOWS = 64 -- flows that a claim looks at in one go, and
local MOST_FLOWS = 1024 -- in all: those whose encoder nobody here serves stand in front for ever
local BELL_TTL = 30000 -- a doorbell that nobody answered for so long counts as lost
local MOST_DEAF = 7 -- a door that nobody answers is rung less and less, down to once in BELL_TTL * 2^7

local function flow_of(lane, namespace) return LANES[lane][1] .. '|' .. namespace end

local function weight_of(flow)
  local order, namespace = string.match(flow, '^(%d)|(.*)$')
  local lane = order == '0' and 64 or order == '1' and 8 or 1
  return lane * (tonumber(redis.call('HGET', key('weights'), namespace)) or 1)
end

-- ------------------------------------------------------------------ events

-- Days since 1970-01-01 to year, month, day: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function rfc3339(ms)
  local seconds = math.floor(ms / 1000)
  local days, rest = math.floor(seconds / 86400), seconds % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(rest / 3600),
    math.floor(rest / 60) % 60, rest % 60, ms % 1000)
end

-- uuid5 of RFC 9562 in the namespace of trivet.ids.EVENT_NAMESPACE, whose bytes come as ARGV[1] in hex.
local function uuid5(name)
  local space = string.gsub(ARGV[1], '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
  local hex = redis.sha1hex(space .. name)
  local variant = string.format('%x', tonumber(string.sub(hex, 17, 17), 16) % 4 + 8)
  return string.sub(hex, 1, 8) .. '-' .. string.sub(hex, 9, 12) .. '-5' .. string.sub(hex, 14, 16) .. '-' ..
    variant .. string.sub(hex, 18, 20) .. '-' .. string.sub(hex, 21, 32)
end

-- Appends a CloudEvent in the same script as the transition it tells of: neither is ever without the other.
-- `extra` is the inside of a JSON object, such as '"receipt":{…}', or ''.
local function emit(id, kind, extra)
  local t = redis.call('HMGET', key('task', id), 'namespace', 'collection', 'object', 'url', 'run', 'state', 'lane', 'generation')
  local run = tonumber(t[5])
  local data = cjson.encode({
    task_id = id, namespace = t[1], collection = t[2], object_id = t[3], url = t[4], run = run, state = t[6], lane = t[7],
    generation = tonumber(t[8] or '')
  })
  if extra ~= '' then data = string.sub(data, 1, -2) .. ',' .. extra .. '}' end
  local head = cjson.encode({
    specversion = '1.0', id = uuid5(id .. '/' .. run .. '/' .. kind), source = 'trivet/' .. t[1] .. '/' .. t[2],
    type = 'trivet.' .. kind, subject = t[3], time = rfc3339(now), datacontenttype = 'application/json'
  })
  redis.call('XADD', key('events'), 'MAXLEN', '~', ARGV[2], '*', 'event', string.sub(head, 1, -2) .. ',"data":' .. data .. '}')
end

-- ------------------------------------------------------------------ doorbells

-- Rings for a queue unless 2 x workers doorbells stand there already; what is to be sent is gathered in `bells`.
local bells, crowded = {}, {}
local function ring(stage, queue)
  local door = stage == 'embed' and queue or 'any'
  if crowded[stage .. door] then return end
  local standing, deaf = key('bells', stage, door), key('deaf', stage, door)
  local patience = BELL_TTL * 2 ^ math.min(tonumber(redis.call('GET', deaf) or 0), MOST_DEAF)
  if redis.call('ZREMRANGEBYSCORE', standing, '-inf', now - patience) > 0 then
    redis.call('INCR', deaf)
    redis.call('PEXPIRE', deaf, BELL_TTL * 2 ^ (MOST_DEAF + 1))
  end
  local slots = 0
  for _, n in ipairs(redis.call('HVALS', key('slots', stage))) do slots = slots + tonumber(n) end
  if redis.call('ZCARD', standing) < 2 * math.max(1, slots) then
    local id = tostring(redis.call('INCR', key('bell')))
    redis.call('ZADD', standing, now, id)
    table.insert(bells, stage .. '|' .. door .. '|' .. id)
  else
    crowded[stage .. door] = true
  end
end

-- ------------------------------------------------------------------ queues: start-time fair queueing
-- (Goyal, Vin, Cheng 1996), twice: flows (lane, namespace) share a stage by weight, over all its queues; the tasks of
-- a flow share it by tags. Keys: vt:STAGE flow → virtual time while it waits; vtlast:STAGE the same of those that do
-- not ('*' is the stage's own); served:STAGE flow → highest tag that was served; line:STAGE:FLOW:QUEUE item → tag;
-- lines:STAGE:FLOW the queues in which the flow waits; waiting:STAGE queue → items that wait, suspects counted.

local function step(item)
  local h = redis.call('HMGET', key('item', item), 'stage', 'queue', 'flow', 'tag', 'suspect', 'cost')
  return h[1], h[2], h[3], h[4], h[5] == '1', tonumber(h[6] or 0)
end

local function counted(stage, queue, n)
  if redis.call('HINCRBY', key('waiting', stage), queue, n) <= 0 then redis.call('HDEL', key('waiting', stage), queue) end
end

-- `back`: the item was leased and not worked on, so its flow gets back what the claim cost it.
local function push(item, back)
  local stage, queue, flow, tag, suspect, cost = step(item)
  redis.call('HSET', key('item', item), 'state', 'pending', 'epoch', 0)
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

-- `ahead`: cost of the same task's items before this one, so that a big task does not hold up a small one.
local function create(task, stage, queue, n, cost, ahead, hash)
  local t = redis.call('HMGET', key('task', task), 'lane', 'namespace')
  local flow = flow_of(t[1], t[2])
  local item = task .. '/' .. stage .. '/' .. n
  local served = tonumber(redis.call('HGET', key('served', stage), flow) or 0)
  redis.call('HSET', key('item', item), 'stage', stage, 'queue', queue, 'flow', flow, 'tag', served + ahead + cost,
    'cost', cost, 'attempts', 0, 'expiries', 0)
  if hash then redis.call('HSET', key('item', item), 'hash', hash) end
  push(item, false)
end

-- ------------------------------------------------------------------ leases

local function unlease(item)
  redis.call('ZREM', key('leases'), item)
  local owner = redis.call('HGET', key('item', item), 'owner')
  if owner then
    redis.call('SREM', key('held', owner), item)
    redis.call('HDEL', key('item', item), 'owner')
  end
end

local function forget(item)
  unqueue(item)
  unlease(item)
  redis.call('ZREM', key('due'), item)
  redis.call('DEL', key('item', item))
end

-- Whether (item, epoch) is still the holder's; the task's own fence (cancelled, superseded) is part of it.
local function held(item, epoch)
  local h = redis.call('HMGET', key('item', item), 'state', 'epoch')
  return h[1] == 'leased' and h[2] == epoch
end

local function task_of(item) return string.match(item, '^([^/]+)/') end

-- ------------------------------------------------------------------ tasks

local TERMINAL = { completed = true, skipped = true, failed = true, cancelled = true, superseded = true }
local KINDS = {
  completed = 'ingest.completed', skipped = 'ingest.skipped', failed = 'ingest.failed',
  cancelled = 'ingest.cancelled', superseded = 'ingest.superseded'
}

local function set_state(id, state)
  local old = redis.call('HGET', key('task', id), 'state')
  if old == state then return end
  if old then redis.call('HINCRBY', key('states'), old, -1) end
  redis.call('HINCRBY', key('states'), state, 1)
  redis.call('HSET', key('task', id), 'state', state, 'updated', now)
end

local function object_key(id)
  local t = redis.call('HMGET', key('task', id), 'namespace', 'collection', 'object')
  return key('object', t[1], t[2], t[3])
end

local function start(id)
  local t = redis.call('HMGET', key('task', id), 'model', 'cost')
  redis.call('HSET', object_key(id), 'active', id)
  set_state(id, 'queued')
  create(id, 'prepare', t[1], 0, tonumber(t[2]), 0)
end

-- Tokens that wait for an embed worker, by what the pipelines ask for.
local function staged(model, tokens)
  if redis.call('HINCRBY', key('staged'), model, tokens) <= 0 then redis.call('HDEL', key('staged'), model) end
end

-- Takes what is left of a task's work items away and gives their staged tokens back.
local function clear(id)
  local t = redis.call('HMGET', key('task', id), 'shards', 'model')
  forget(id .. '/prepare/0')
  forget(id .. '/commit/0')
  local left = 0
  for n = 0, tonumber(t[1] or 0) - 1 do
    local item = id .. '/embed/' .. n
    local cost = redis.call('HGET', key('item', item), 'cost')
    if cost then
      left = left + tonumber(cost)
      forget(item)
    end
  end
  if left > 0 then staged(t[2], -left) end
end

-- Ends a task: the terminal event goes out here and nowhere else, and the next task of the object starts.
local function finish(id, state, extra)
  clear(id)
  set_state(id, state)
  redis.call('HSET', key('task', id), 'ended', now)
  redis.call('ZADD', key('terminal'), now, id)
  if state == 'failed' then redis.call('ZADD', key('dead'), now, id) end
  -- The manifest has the parts; the URL with its query has done its service.
  redis.call('HSET', key('task', id), 'shards_done', redis.call('HLEN', key('parts', id)))
  redis.call('DEL', key('parts', id), key('done', id), key('url', id))
  emit(id, KINDS[state], extra)
  local object = object_key(id)
  local o = redis.call('HMGET', object, 'active', 'waiting')
  if o[1] == id then
    redis.call('HDEL', object, 'active')
    if o[2] then
      redis.call('HDEL', object, 'waiting')
      start(o[2])
    end
  elseif o[2] == id then
    redis.call('HDEL', object, 'waiting')
  end
end

-- An error of a work item: it comes back after `delay`, or its task fails. Charged, it fails at the `cap`th attempt;
-- with a `patience` (ms) nothing is charged, and it fails when such errors have gone on for so long.
local function charge(item, error, permanent, delay, cap, patience)
  local id = task_of(item)
  local attempts, over
  if patience and not permanent then
    redis.call('HSETNX', key('item', item), 'trouble', now)
    attempts = tonumber(redis.call('HGET', key('item', item), 'attempts'))
    over = now - tonumber(redis.call('HGET', key('item', item), 'trouble')) >= patience
  else
    attempts = redis.call('HINCRBY', key('item', item), 'attempts', 1)
    over = attempts >= cap
  end
  redis.call('HSET', key('task', id), 'error', error)
  if permanent or over then
    finish(id, 'failed', '"attempts":' .. attempts .. ',"error":' .. error)
    return 'failed'
  end
  unlease(item)
  redis.call('HSET', key('item', item), 'state', 'due', 'epoch', 0)
  redis.call('HSET', key('task', id), 'retry_at', now + delay)
  redis.call('ZADD', key('due'), now + delay, item)
  return 'retry'
end
