-- What an endpoint missed up to this stream id was put in line. ARGV: …, id, stream id
local e = key('endpoint', ARGV[3])
local missed_until = redis.call('HGET', e, 'missed_until')
if missed_until == ARGV[4] then
  redis.call('HDEL', e, 'missed', 'missed_until')
elseif missed_until then
  redis.call('HSET', e, 'missed', ARGV[4])
end
return 1
