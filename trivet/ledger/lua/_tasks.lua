-- Shared by all ledger scripts, after _queues.lua: who holds what, and how tasks begin and end.

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
  local scope = redis.call('HGET', key('item', item), 'parked')
  if scope then redis.call('SREM', key('parked', scope), item) end
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

local TERMINAL = { completed = true, skipped = true, failed = true, cancelled = true, superseded = true, deleted = true }
local KINDS = {
  completed = 'ingest.completed', skipped = 'ingest.skipped', failed = 'ingest.failed',
  cancelled = 'ingest.cancelled', superseded = 'ingest.superseded', deleted = 'ingest.deleted'
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

-- What decides which encoders may take a task, and so which of them has too much to do already.
local function model_of(config)
  local pipeline = cjson.decode(config).pipeline
  return pipeline.model_id .. (pipeline.revision ~= '' and '@' .. pipeline.revision or '') ..
    (pipeline.dtype ~= 'auto' and ' in ' .. pipeline.dtype or '')
end

-- Takes a new generation, above all that the object's row and S3 (`floor`) know of.
local function next_generation(id, floor)
  local generation = math.max(tonumber(redis.call('HGET', object_key(id), 'generation') or 0), tonumber(floor)) + 1
  redis.call('HSET', object_key(id), 'generation', generation)
  redis.call('HSET', key('task', id), 'generation', generation)
  return generation
end

-- Tasks of one pipeline share its text.
local function intern_config(config)
  local digest = redis.sha1hex(config)
  redis.call('SET', key('config', digest), config, 'NX')
  return digest
end

local function start(id)
  local t = redis.call('HMGET', key('task', id), 'model', 'cost', 'kind')
  redis.call('HSET', object_key(id), 'active', id)
  set_state(id, 'queued')
  if t[3] == 'delete' then
    create(id, 'commit', 'any', 0, 1, 0)
  else
    create(id, 'prepare', t[1], 0, tonumber(t[2]), 0)
  end
end

-- Tokens that wait for an embed worker, by what the pipelines ask for.
local function staged(model, tokens)
  if redis.call('HINCRBY', key('staged'), model, tokens) <= 0 then redis.call('HDEL', key('staged'), model) end
end

-- The shards that ARGV names from `first` on, each by its tokens and the hash of its inputs, and their tokens.
local function shards_of(first)
  local shards, tokens = {}, 0
  for i = first, #ARGV, 2 do
    table.insert(shards, { tokens = tonumber(ARGV[i]), hash = ARGV[i + 1] })
    tokens = tokens + tonumber(ARGV[i])
  end
  return shards, tokens
end

-- Lets a task's shards wait for an embed worker.
local function embed(id, queue, shards)
  local ahead = 0
  for n, shard in ipairs(shards) do
    create(id, 'embed', queue, n - 1, shard.tokens, ahead, shard.hash)
    ahead = ahead + shard.tokens
  end
  staged(redis.call('HGET', key('task', id), 'model'), ahead)
  set_state(id, 'embedding')
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
-- `drained`: it has used up its attempts, and an operator should look.
local function finish(id, state, extra, drained)
  clear(id)
  set_state(id, state)
  redis.call('HSET', key('task', id), 'ended', now)
  redis.call('ZADD', key('terminal'), now, id)
  if state == 'failed' then redis.call('ZADD', key('dead'), now, id) end
  -- The manifest has the parts; the URL with its query is kept for a retry alone.
  redis.call('HSET', key('task', id), 'shards_done', redis.call('HLEN', key('parts', id)))
  redis.call('DEL', key('parts', id), key('done', id))
  if (state == 'failed' or state == 'cancelled') and tonumber(ARGV[2]) > 0 then
    redis.call('PEXPIRE', key('url', id), ARGV[2])
  else
    redis.call('DEL', key('url', id))
  end
  emit(id, KINDS[state], extra)
  if drained then emit(id, 'ingest.dead_lettered', extra) end
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

-- Lets a task begin where its object is free; else it waits, and waiters that have not started coalesce to the newest.
local function enter(id)
  local object = object_key(id)
  local o = redis.call('HMGET', object, 'active', 'waiting')
  if not o[1] then
    start(id)
    emit(id, 'ingest.accepted', '')
    return
  end
  set_state(id, 'waiting')
  emit(id, 'ingest.accepted', '')
  redis.call('HSET', object, 'waiting', id)
  if o[2] and o[2] ~= id then finish(o[2], 'superseded', '"superseded_by":"' .. id .. '"') end
end

-- An error of a work item: it comes back after `delay`, or its task fails. Charged, it fails at the `cap`th attempt;
-- with a `patience` (ms) nothing is charged, and it fails when such errors have gone on for so long: the time of its tries
-- and of the delays between them counts, and not what it stood in line, or aside, after a delay was over.
local function charge(item, error, permanent, delay, cap, patience)
  local id = task_of(item)
  local attempts, over
  if patience and not permanent then
    local h = redis.call('HMGET', key('item', item), 'attempts', 'taken')
    attempts = tonumber(h[1] or 0)
    over = redis.call('HINCRBY', key('item', item), 'outage', math.max(0, now - tonumber(h[2] or now))) >= patience
    if not over then redis.call('HINCRBY', key('item', item), 'outage', delay) end
  else
    attempts = redis.call('HINCRBY', key('item', item), 'attempts', 1)
    over = attempts >= cap
  end
  redis.call('HSET', key('task', id), 'error', error)
  if permanent or over then
    finish(id, 'failed', '"attempts":' .. attempts .. ',"error":' .. error, not permanent)
    return 'failed'
  end
  unlease(item)
  redis.call('HSET', key('item', item), 'state', 'due', 'epoch', 0)
  redis.call('HSET', key('task', id), 'retry_at', now + delay)
  redis.call('ZADD', key('due'), now + delay, item)
  return 'retry'
end
