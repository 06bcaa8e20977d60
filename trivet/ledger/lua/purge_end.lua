-- Lets the tasks of an object start again. ARGV: …, purge, object key, name of the turn, process → {bells…}
-- A process that was stopped, and whose turn another has, must not open what that one has shut.
if redis.call('GET', key(ARGV[5])) ~= ARGV[6] then return bells end
local o = redis.call('HMGET', ARGV[4], 'active', 'waiting')
redis.call('DEL', key('purge_shut', ARGV[3]))
if o[1] ~= ARGV[3] then return bells end
redis.call('HDEL', ARGV[4], 'active')
if o[2] then
  redis.call('HDEL', ARGV[4], 'waiting')
  start(o[2])
end
return bells
