-- A shard is written. ARGV: …, item, epoch, part json → {outcome, bells…}
-- Done shards are the keys of a hash, never a count: the same shard twice changes nothing.
local item, epoch = ARGV[3], ARGV[4]
local id, _, n = string.match(item, '^([^/]+)/([^/]+)/(%d+)$')
if redis.call('HGET', key('done', id), n) == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
local cost = redis.call('HGET', key('item', item), 'cost')
redis.call('HSET', key('parts', id), n, ARGV[5])
forget(item)
local t = redis.call('HMGET', key('task', id), 'model', 'shards')
redis.call('HSET', key('done', id), n, epoch)
redis.call('HSET', key('task', id), 'updated', now)
staged(t[1], -tonumber(cost))
redis.call('HINCRBY', key('task', id), 'tokens_done', cost)
if redis.call('HLEN', key('parts', id)) == tonumber(t[2]) then create(id, 'commit', 'any', 0, 1, 0) end
return { 'done', unpack(bells) }
