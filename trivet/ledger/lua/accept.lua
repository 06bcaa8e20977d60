-- Takes a task in. ARGV: …, task, namespace, collection, object, lane, redacted URL, full URL or '', metadata,
-- media type, idempotency key or '', fingerprint, its ttl ms, estimated bytes, kind, the encoder's wish or '' →
-- {outcome, task, state, bells…}
local id, ns, collection, object, lane, kind = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[16]
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

local row = { 'namespace', ns, 'collection', collection, 'object', object, 'lane', lane, 'url', ARGV[8], 'run', 1,
  'created', now, 'cost', ARGV[15] }
local function also(name, value)
  table.insert(row, name)
  table.insert(row, value)
end
if kind == 'delete' then
  also('kind', kind)
else
  local config = redis.call('HGET', key('collections', ns), collection)
  if not config then return { 'unknown_collection', '', '' } end
  local model = model_of(config)
  if ARGV[17] ~= '' and ARGV[17] ~= model then return { 'other_encoder', '', '' } end
  also('model', model)
  also('config', intern_config(config))
end
if ARGV[10] ~= '{}' then also('metadata', ARGV[10]) end
if ARGV[11] ~= '' then also('media_type', ARGV[11]) end
if idem then
  also('idem', ARGV[12])
  also('fingerprint', ARGV[13])
end
if ARGV[9] ~= '' then
  redis.call('SET', key('url', id), ARGV[9])
  also('secret', 1)
end
redis.call('HSET', key('task', id), unpack(row))
redis.call('ZADD', key('tasks', ns), now, id)
redis.call('HINCRBY', key('taken', ns), collection, 1)
redis.call('SADD', key('namespaces'), ns)
if idem then redis.call('SET', idem, id .. ' ' .. ARGV[13], 'PX', ARGV[14]) end
enter(id)
return { 'new', id, redis.call('HGET', key('task', id), 'state'), unpack(bells) }
