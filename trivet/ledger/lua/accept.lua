-- Takes a task in. ARGV: event namespace, stream length, task, namespace, collection, object, lane, redacted URL,
-- full URL or '', metadata, media type, idempotency key or '', fingerprint, its ttl ms, estimated bytes
-- → {outcome, task, state, bells…}
local id, ns, collection, object, lane = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local idem = ARGV[12] ~= '' and key('idem', ns, ARGV[12]) or nil
if idem then
  local seen = redis.call('GET', idem)
  if seen then
    local other, fingerprint = string.match(seen, '^(%S+) (%S+)$')
    if fingerprint ~= ARGV[13] then return { 'conflict', other, '' } end
    return { 'again', other, redis.call('HGET', key('task', other), 'state') or 'expired' }
  end
end
local state = redis.call('HGET', key('task', id), 'state')
if state then return { 'again', id, state } end
local config = redis.call('HGET', key('collections', ns), collection)
if not config then return { 'unknown_collection', '', '' } end

local pipeline = cjson.decode(config).pipeline
-- What decides which encoders may take it, and so which of them has too much to do already.
local model = pipeline.model_id .. (pipeline.revision ~= '' and '@' .. pipeline.revision or '') ..
  (pipeline.dtype ~= 'auto' and ' in ' .. pipeline.dtype or '')
redis.call('HSET', key('task', id), 'namespace', ns, 'collection', collection, 'object', object, 'lane', lane,
  'url', ARGV[8], 'metadata', ARGV[10], 'media_type', ARGV[11], 'run', 1, 'created', now, 'config', config,
  'model', model, 'cost', ARGV[15])
if ARGV[9] ~= '' then redis.call('SET', key('url', id), ARGV[9]) end
redis.call('ZADD', key('tasks', ns), now, id)
if idem then redis.call('SET', idem, id .. ' ' .. ARGV[13], 'PX', ARGV[14]) end
local o = redis.call('HMGET', key('object', ns, collection, object), 'active', 'waiting')
if o[1] then
  set_state(id, 'waiting')
  emit(id, 'ingest.accepted', '')
  -- Waiters that have not started coalesce to the newest.
  redis.call('HSET', key('object', ns, collection, object), 'waiting', id)
  if o[2] then finish(o[2], 'superseded', '"superseded_by":"' .. id .. '"') end
else
  start(id)
  emit(id, 'ingest.accepted', '')
end
return { 'new', id, redis.call('HGET', key('task', id), 'state'), unpack(bells) }
