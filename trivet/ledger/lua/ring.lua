-- Answers one doorbell (or none, '') and rings again where work is left. ARGV: …, stage, door, bell, again → {bells…}
if ARGV[5] ~= '' then
  redis.call('ZREM', key('bells', ARGV[3], ARGV[4]), ARGV[5])
  redis.call('DEL', key('deaf', ARGV[3], ARGV[4]))
end
if ARGV[6] == '1' then
  for _, queue in ipairs(redis.call('HKEYS', key('waiting', ARGV[3]))) do
    if ARGV[3] ~= 'embed' or queue == ARGV[4] then
      ring(ARGV[3], queue)
      break
    end
  end
end
return bells
