-- Hands leases back, uncharged. ARGV: …, endpoint, event, epoch of each → how many were handed back
local done = 0
for i = 3, #ARGV, 3 do
  local endpoint, event = ARGV[i], ARGV[i + 1]
  if standing(endpoint, event, ARGV[i + 2]) == 'leased' then
    unlease(endpoint, event)
    redis.call('HINCRBY', row(endpoint, event), 'attempts', -1)
    wait_until(endpoint, event, now)
    done = done + 1
  end
end
return done
