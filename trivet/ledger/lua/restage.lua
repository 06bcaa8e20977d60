-- Another writer owns our generation's manifest: all shards are written again under a new one.
-- ARGV: …, item, epoch, floor → {outcome, bells…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if not held(item, epoch) then return { 'lost' } end
local t = redis.call('HMGET', key('task', id), 'shards', 'queue')
next_generation(id, ARGV[5])
redis.call('HSET', key('task', id), 'tokens_done', 0)
if not t[1] then
  -- A delete has nothing but its tombstone to write.
  forget(item)
  create(id, 'commit', 'any', 0, 1, 0)
  return { 'staged', unpack(bells) }
end
local shards = {}
for n = 0, tonumber(t[1]) - 1 do
  local part = cjson.decode(redis.call('HGET', key('parts', id), tostring(n))).part
  table.insert(shards, { tokens = part.tokens, hash = part.input_hash })
end
redis.call('DEL', key('parts', id), key('done', id))
forget(item)
embed(id, t[2], shards)
return { 'staged', unpack(bells) }
