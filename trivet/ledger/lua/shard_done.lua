-- A shard is written. ARGV: …, item, epoch, part json, ms between progress events → {outcome, bells…}
-- Done shards are the keys of a hash, never a count: the same shard twice changes nothing.
local item, epoch = ARGV[3], ARGV[4]
local id, _, n = string.match(item, '^([^/]+)/([^/]+)/(%d+)$')
if redis.call('HGET', key('done', id), n) == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
local cost = redis.call('HGET', key('item', item), 'cost')
redis.call('HSET', key('parts', id), n, ARGV[5])
forget(item)
local t = redis.call('HMGET', key('task', id), 'model', 'shards', 'told', 'tokens')
redis.call('HSET', key('done', id), n, epoch)
redis.call('HSET', key('task', id), 'updated', now)
staged(t[1], -tonumber(cost))
local tokens = redis.call('HINCRBY', key('task', id), 'tokens_done', cost)
local written = redis.call('HLEN', key('parts', id))
if written == tonumber(t[2]) then
  create(id, 'commit', 'any', 0, 1, 0)
elseif now - tonumber(t[3] or now) >= tonumber(ARGV[6]) then
  redis.call('HSET', key('task', id), 'told', now)
  emit(id, 'ingest.progress', '"shards":' .. t[2] .. ',"shards_done":' .. written .. ',"tokens":' .. t[4] ..
    ',"tokens_done":' .. tokens, written)
end
return { 'done', unpack(bells) }
