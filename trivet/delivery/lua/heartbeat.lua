-- Prolongs leases. ARGV: …, lease ms, then endpoint, event, epoch of each → {position, from 0, of each that is lost}
local lost = {}
for i = 4, #ARGV, 3 do
  if standing(ARGV[i], ARGV[i + 1], ARGV[i + 2]) == 'leased' then
    redis.call('ZADD', key('sending'), now + tonumber(ARGV[3]), name_of(ARGV[i], ARGV[i + 1]))
  else
    table.insert(lost, (i - 4) / 3)
  end
end
return lost
