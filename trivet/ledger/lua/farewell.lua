-- A worker goes: its leases are given back at once, nothing is charged. ARGV: …, worker → {number, bells…}
local worker = ARGV[3]
local n = 0
for _, item in ipairs(redis.call('SMEMBERS', key('held', worker))) do
  unlease(item)
  push(item, true)
  n = n + 1
end
redis.call('DEL', key('held', worker))
redis.call('ZREM', key('workers'), worker)
redis.call('DEL', key('worker', worker))
for _, stage in ipairs({ 'prepare', 'embed', 'commit' }) do redis.call('HDEL', key('slots', stage), worker) end
return { n, unpack(bells) }
