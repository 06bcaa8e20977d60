-- One repair that needs to know what the ledger does not. ARGV: …, what, then
--   state: task, state                  an ended task's state, as its event says
--   shard: task, n, tokens, input hash  a shard that is to be embedded, as its plan says
--   event: task, run, inside of JSON    the terminal event of a task that has ended
--   count: hash, field, was, is         a counter
--   slot: stage, worker                 a worker that is none
-- → 1 where it was done
local OPEN = { waiting = true, queued = true, preparing = true, embedding = true, committing = true }
local what, id = ARGV[3], ARGV[4]
if what == 'count' then
  if (redis.call('HGET', key(id), ARGV[5]) or '0') ~= ARGV[6] then return 0 end
  if ARGV[7] == '0' then redis.call('HDEL', key(id), ARGV[5]) else redis.call('HSET', key(id), ARGV[5], ARGV[7]) end
  return 1
elseif what == 'slot' then
  if redis.call('ZSCORE', key('workers'), ARGV[5]) then return 0 end
  return redis.call('HDEL', key('slots', id), ARGV[5])
end
local t = redis.call('HMGET', key('task', id), 'state', 'run', 'shards', 'queue', 'model', 'namespace')
if not t[6] then return 0 end
if what == 'state' then
  if OPEN[t[1]] or TERMINAL[t[1]] then return 0 end
  redis.call('HSET', key('task', id), 'state', ARGV[5])
elseif what == 'shard' then
  local item = id .. '/embed/' .. ARGV[5]
  if TERMINAL[t[1]] or not t[3] or not t[4] or redis.call('HEXISTS', key('parts', id), ARGV[5]) == 1 or
    redis.call('EXISTS', key('item', item)) == 1 then return 0 end
  create(id, 'embed', t[4], tonumber(ARGV[5]), tonumber(ARGV[6]), 0, ARGV[7])
  staged(t[5], tonumber(ARGV[6]))
elseif what == 'event' then
  if not TERMINAL[t[1]] or t[2] ~= ARGV[5] then return 0 end
  -- Another audit, or this one whose answer was lost, may have written it already.
  local mended = redis.call('HGET', key('task', id), 'mended') or ''
  local run, entry = string.match(mended, '^(%S+) (%S+)$')
  if run == t[2] and #redis.call('XRANGE', key('events'), entry, entry) == 1 then return 1 end
  emit(id, KINDS[t[1]], ARGV[6])
  local last = redis.call('XREVRANGE', key('events'), '+', '-', 'COUNT', 1)[1][1]
  redis.call('HSET', key('task', id), 'mended', t[2] .. ' ' .. last)
end
return 1
