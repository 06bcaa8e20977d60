-- Keeps a worker's leases. ARGV: event namespace, stream length, worker, lease ms, info json, n roles, roles…,
-- then item, epoch, … → {items that are no longer the worker's}
local worker, lease_ms, roles = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6])
redis.call('ZADD', key('workers'), now, worker)
redis.call('HSET', key('worker', worker), 'info', ARGV[5])
redis.call('PEXPIRE', key('worker', worker), 10 * lease_ms + 60000)
for i = 7, 6 + roles do
  if redis.call('HSET', key('slots', ARGV[i]), worker, 1) == 1 then
    -- Somebody new may hear what nobody answered: ring there again as to anybody.
    for _, queue in ipairs(redis.call('HKEYS', key('waiting', ARGV[i]))) do
      local door = ARGV[i] == 'embed' and queue or 'any'
      if redis.call('DEL', key('deaf', ARGV[i], door)) == 1 then redis.call('DEL', key('bells', ARGV[i], door)) end
    end
  end
end
local lost = {}
for i = 7 + roles, #ARGV, 2 do
  if held(ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', key('leases'), now + lease_ms, ARGV[i])
  else
    table.insert(lost, ARGV[i])
  end
end
return lost
