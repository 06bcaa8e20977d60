-- Lets a delivery be tried again at once. ARGV: …, hook, delivery, owner
local r = received(ARGV[3], ARGV[4])
if redis.call('HGET', r, 'owner') == ARGV[5] then redis.call('DEL', r) end
return 1
