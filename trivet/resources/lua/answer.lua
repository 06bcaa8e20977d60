-- A reservation that ran out and was taken by another request is not ours to answer.
local at, fingerprint, answer, milliseconds = key('answer', ARGV[1], ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local held = redis.call('HGET', at, 'fingerprint')
if held and held ~= fingerprint then
  return 0
end
redis.call('HSET', at, 'fingerprint', fingerprint, 'answer', answer)
redis.call('PEXPIRE', at, milliseconds)
return 1
