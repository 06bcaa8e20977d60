-- Ends a key; it is listed for a while. ARGV: …, id, kept ms → 1, 0 where it was revoked, -1 where there is none
local k = key('apikey', ARGV[3])
if redis.call('EXISTS', k) == 0 then return -1 end
if redis.call('HSETNX', k, 'revoked', now) == 0 then return 0 end
redis.call('HSET', k, 'hashes', '[]')
redis.call('PEXPIRE', k, ARGV[4])
return 1
