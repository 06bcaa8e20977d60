-- Keeps a hook. ARGV: …, id, namespace, most, fields… → 1, 0 where it was there already, -1 where there are too many
local id, namespace = ARGV[3], ARGV[4]
if redis.call('EXISTS', key('hook', id)) == 1 then return 0 end
if redis.call('SCARD', key('hooks', namespace)) >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', key('hook', id), 'id', id, 'namespace', namespace, 'created', now, unpack(ARGV, 6))
redis.call('SADD', key('hooks', namespace), id)
return 1
