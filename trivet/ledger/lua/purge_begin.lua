-- Keeps the tasks of an object from starting while something of it is removed: the purge stands where the active task
-- would. ARGV: …, purge, object key, object, name of the turn, process → shut | busy | lost (it is another's turn)
if redis.call('GET', key(ARGV[6])) ~= ARGV[7] then return 'lost' end
local o = redis.call('HMGET', ARGV[4], 'active', 'waiting')
if o[1] ~= ARGV[3] and (o[1] or o[2]) then return 'busy' end
redis.call('HSET', ARGV[4], 'active', ARGV[3])
redis.call('SET', key('purge_shut', ARGV[3]), ARGV[5])
return 'shut'
