-- Remembers what became of a delivery. ARGV: …, hook, delivery, outcome, kept ms, kind
local r = received(ARGV[3], ARGV[4])
redis.call('DEL', r)
redis.call('HSET', r, 'outcome', ARGV[5])
redis.call('PEXPIRE', r, ARGV[6])
local h = key('hook', ARGV[3])
if redis.call('EXISTS', h) == 1 then redis.call('HSET', h, 'last', now, 'kind', ARGV[7]) end
return 1
