-- Registers an endpoint. ARGV: …, id, namespace, fields… → 1, or 0 where it was there already
local id, namespace = ARGV[3], ARGV[4]
if redis.call('EXISTS', key('endpoint', id)) == 1 then return 0 end
-- In one step with the registration, so that the group misses nothing which the endpoint should get. An error says that
-- the group is there.
redis.pcall('XGROUP', 'CREATE', key('events'), GROUP, '$', 'MKSTREAM')
local facts, answer = {}, redis.call('XINFO', 'STREAM', key('events'))
for i = 1, #answer, 2 do facts[answer[i]] = answer[i + 1] end
redis.call('HSET', key('endpoint', id), 'id', id, 'namespace', namespace, 'state', 'active', 'created', now, 'changed', now,
  'since', facts['last-generated-id'], unpack(ARGV, 5))
redis.call('ZADD', key('endpoints'), now, id)
redis.call('SADD', key('endpoints', namespace), id)
return 1
