-- Charges an error. ARGV: …, item, epoch, error json, permanent, delay ms, most attempts, patience ms or '' → {outcome, bells…}
local item, epoch = ARGV[3], ARGV[4]
if redis.call('HGET', key('task', task_of(item)), 'failed_by') == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
redis.call('HSET', key('task', task_of(item)), 'failed_by', epoch)
return { charge(item, ARGV[5], ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])), unpack(bells) }
