-- Another writer owns our generation's manifest: all shards are written again under a new one.
-- ARGV: …, item, epoch, floor → {outcome, bells…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if not held(item, epoch) then return { 'lost' } end
local t = redis.call('HMGET', key('task', id), 'shards', 'queue', 'model')
local generation = math.max(tonumber(redis.call('HGET', object_key(id), 'generation') or 0), tonumber(ARGV[5])) + 1
redis.call('HSET', object_key(id), 'generation', generation)
redis.call('HSET', key('task', id), 'generation', generation, 'tokens_done', 0)
if not t[1] then
  -- A delete has nothing but its tombstone to write.
  forget(item)
  create(id, 'commit', 'any', 0, 1, 0)
  return { 'staged', unpack(bells) }
end
local ahead, parts = 0, {}
for n = 0, tonumber(t[1]) - 1 do
  parts[n] = cjson.decode(redis.call('HGET', key('parts', id), tostring(n))).part
end
redis.call('DEL', key('parts', id), key('done', id))
forget(item)
for n = 0, tonumber(t[1]) - 1 do
  create(id, 'embed', t[2], n, parts[n].tokens, ahead, parts[n].input_hash)
  ahead = ahead + parts[n].tokens
end
staged(t[3], ahead)
set_state(id, 'embedding')
return { 'staged', unpack(bells) }
