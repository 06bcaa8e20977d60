-- Takes a delivery on. ARGV: …, hook, delivery, owner, lease ms → '' (yours), 'busy', or what became of it
local r = received(ARGV[3], ARGV[4])
local outcome, owner, ends = unpack(redis.call('HMGET', r, 'outcome', 'owner', 'ends'))
if outcome then return outcome end
if owner and owner ~= ARGV[5] and tonumber(ends) > now then return 'busy' end
redis.call('HSET', r, 'owner', ARGV[5], 'ends', now + tonumber(ARGV[6]))
redis.call('PEXPIRE', r, ARGV[6])
return ''
