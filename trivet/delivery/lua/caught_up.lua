-- What an endpoint missed from this stream id on was put in line. ARGV: …, id, stream id
local e = key('endpoint', ARGV[3])
if redis.call('HGET', e, 'missed') == ARGV[4] then redis.call('HDEL', e, 'missed') end
return 1
