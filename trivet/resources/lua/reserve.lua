local at, fingerprint, milliseconds = key('answer', ARGV[1], ARGV[2]), ARGV[3], ARGV[4]
local held, answer = unpack(redis.call('HMGET', at, 'fingerprint', 'answer'))
if not held then
  redis.call('HSET', at, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', at, milliseconds)
  return {'ours', ''}
end
if held ~= fingerprint then
  return {'conflict', ''}
end
return answer and {'answered', answer} or {'busy', ''}
