-- Writes back a task that the ledger has lost. ARGV: …, task, namespace, collection, object, lane, redacted URL, full
-- URL, or ? where it is lost, or '', metadata, media type, idempotency key or '', fingerprint, its ttl ms, estimated bytes, kind, run, created
-- ms, config or '', accepted | staged | a terminal state, spec hash, spec json, generation, queue, source, pages,
-- chunks, manifest key, receipt json, then per shard its tokens and the hash of its inputs → {outcome, bells…}
-- Of two tasks of one object the later stands: what the ledger has was accepted after what it has lost, or was
-- restored in the order of creation.
local id, ns, collection, object, kind = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[16]
local created, config, how, generation = math.min(tonumber(ARGV[18]), now), ARGV[19], ARGV[20], tonumber(ARGV[23])
if redis.call('EXISTS', key('task', id)) == 1 then return { 'known' } end

local idem = ARGV[12] ~= '' and key('idem', ns, ARGV[12]) or nil
local standing = idem and redis.call('GET', idem)
-- The producer has repeated its request: that task stands for this one.
if how == 'accepted' and standing then return { 'known' } end
if config == '' and how == 'accepted' and kind ~= 'delete' then
  config = redis.call('HGET', key('collections', ns), collection)
  if not config then return { 'unknown_collection' } end
end

-- Who stands in the way, or has to go.
local place = key('object', ns, collection, object)
local o = redis.call('HMGET', place, 'active', 'waiting', 'newest', 'generation')
local function later(other)
  return other and tonumber(redis.call('HGET', key('task', other), 'created') or 0) > created
end
local rival, loser
if how == 'accepted' then
  rival = later(o[1]) and o[1] or later(o[2]) and o[2] or later(o[3]) and o[3]
elseif how == 'staged' and o[1] then
  local a = redis.call('HMGET', key('task', o[1]), 'restored', 'state')
  if later(o[1]) then
    rival = o[1]
  elseif a[1] and a[2] ~= 'committing' then
    loser = o[1]
  else
    return { 'busy' }
  end
end

local row = { 'namespace', ns, 'collection', collection, 'object', object, 'lane', ARGV[7], 'url', ARGV[8], 'run',
  ARGV[17], 'created', created, 'cost', ARGV[15], 'restored', now }
local function also(name, value)
  if value and value ~= '' then
    table.insert(row, name)
    table.insert(row, value)
  end
end
also('kind', kind ~= 'ingest' and kind)
also('metadata', ARGV[10] ~= '{}' and ARGV[10])
also('media_type', ARGV[11])
if idem then
  also('idem', ARGV[12])
  also('fingerprint', ARGV[13])
end
if config ~= '' and kind ~= 'delete' then
  also('model', model_of(config))
  also('config', intern_config(config))
end
if ARGV[9] ~= '' and not rival and not TERMINAL[how] then
  if ARGV[9] ~= '?' then redis.call('SET', key('url', id), ARGV[9]) end
  also('secret', 1)
end
if generation > 0 then also('generation', generation) end
redis.call('HSET', key('task', id), unpack(row))
redis.call('ZADD', key('tasks', ns), created, id)
redis.call('HINCRBY', key('taken', ns), collection, 1)
redis.call('SADD', key('namespaces'), ns)
local ttl = created + tonumber(ARGV[14]) - now
if idem and ttl > 0 then redis.call('SET', idem, id .. ' ' .. ARGV[13], 'PX', ttl, 'NX') end
if generation > tonumber(o[4] or 0) then redis.call('HSET', place, 'generation', generation) end
if not rival and not later(o[3]) then redis.call('HSET', place, 'newest', id) end

local shards, tokens = shards_of(30)
if how ~= 'accepted' then
  redis.call('HSET', key('task', id), 'source_sha256', ARGV[25], 'pages', ARGV[26], 'chunks', ARGV[27], 'tokens', tokens,
    'shards', #shards)
end

if rival then
  finish(id, 'superseded', '"superseded_by":"' .. rival .. '"')
elseif TERMINAL[how] then
  redis.call('HSET', key('task', id), 'manifest', ARGV[28], 'shards_done', #shards, 'tokens_done', tokens, 'ended', now)
  set_state(id, how)
  -- Its retention began long ago.
  redis.call('ZADD', key('terminal'), created, id)
  emit(id, KINDS[how], '"manifest":' .. (ARGV[28] == '' and 'null' or cjson.encode(ARGV[28])) .. ',"receipt":' .. ARGV[29])
elseif how == 'accepted' then
  enter(id)
else
  redis.call('SET', key('spec', ARGV[21]), ARGV[22])
  redis.call('HSET', key('task', id), 'spec_hash', ARGV[21], 'queue', ARGV[24], 'told', now)
  redis.call('HSET', place, 'active', id)
  embed(id, ARGV[24], shards)
  emit(id, 'ingest.started', '"pages":' .. ARGV[26] .. ',"chunks":' .. ARGV[27] .. ',"tokens":' .. tokens ..
    ',"shards":' .. #shards)
  if loser then finish(loser, 'superseded', '"superseded_by":"' .. id .. '"') end
end
return { rival and 'superseded' or 'restored', unpack(bells) }
