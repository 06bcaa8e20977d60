local at, fingerprint = key('answer', ARGV[1], ARGV[2]), ARGV[3]
local held, answer = unpack(redis.call('HMGET', at, 'fingerprint', 'answer'))
if held == fingerprint and not answer then
  redis.call('DEL', at)
end
return 1
