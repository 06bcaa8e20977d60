-- The endpoint has taken the event. ARGV: …, endpoint, event, epoch, status, ms, ms for which it is remembered, length
-- of the log → what the delivery is now, or 'lost'
local endpoint, event = ARGV[3], ARGV[4]
local is = standing(endpoint, event, ARGV[5])
if is ~= 'leased' then return is end
local d, e = row(endpoint, event), key('endpoint', endpoint)
unlease(endpoint, event)
-- Written anew: a hash that has held a body stays large.
local KEPT = { 'attempts', 'entry', 'kind', 'created', 'op', 'epoch' }
local kept, flat = redis.call('HMGET', d, unpack(KEPT)), { 'state', 'delivered', 'status', ARGV[6] }
for i, name in ipairs(KEPT) do
  table.insert(flat, name)
  table.insert(flat, kept[i])
end
redis.call('DEL', d)
redis.call('HSET', d, unpack(flat))
redis.call('PEXPIRE', d, ARGV[8])
redis.call('HDEL', e, 'failing_since', 'failures')
redis.call('HSET', e, 'last_success', now)
note(endpoint, event, true, ARGV[6], '', ARGV[7], nil)
redis.call('LTRIM', key('attempts', endpoint), 0, tonumber(ARGV[9]) - 1)
return 'delivered'
