-- Gives work items back: no attempt is charged, and they keep their place. ARGV: …, item, epoch, … → {bells…}
for i = 3, #ARGV, 2 do
  if held(ARGV[i], ARGV[i + 1]) then
    unlease(ARGV[i])
    redis.call('HSET', key('item', ARGV[i]), 'epoch', 0)
    push(ARGV[i])
  end
end
return bells
