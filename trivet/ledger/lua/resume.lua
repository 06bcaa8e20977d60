-- Ends a pause and puts back some of what it held up. ARGV: …, scope, most → {was paused, items still put aside, bells…}
local was = redis.call('HDEL', key('paused'), ARGV[3])
return { was, unpark(ARGV[3], tonumber(ARGV[4])), unpack(bells) }
