-- Keeps a key. ARGV: …, id, namespace, most, fields… → 1, 0 where it was there already, -1 where there are too many
local id, namespace = ARGV[3], ARGV[4]
if redis.call('EXISTS', key('apikey', id)) == 1 then return 0 end
if #present(namespace) >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', key('apikey', id), 'id', id, 'namespace', namespace, 'created', now, unpack(ARGV, 6))
redis.call('SADD', key('apikeys', namespace), id)
return 1
