-- Notes a use. ARGV: …, id
local k = key('apikey', ARGV[3])
if redis.call('EXISTS', k) == 1 then redis.call('HSET', k, 'used', now) end
return 1
