local at, fingerprint, milliseconds = key('answer', ARGV[1], ARGV[2]), ARGV[3], ARGV[4]
local held, answer = unpack(redis.call('HMGET', at, 'fingerprint', 'answer'))
if held == fingerprint and not answer then
  redis.call('PEXPIRE', at, milliseconds)
end
return 1
