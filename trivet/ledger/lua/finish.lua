-- Ends a task that is ours to end. ARGV: …, item, epoch, state, manifest key or '', receipt json → {outcome, bells…}
local item, epoch, state, id = ARGV[3], ARGV[4], ARGV[5], task_of(ARGV[3])
if redis.call('HGET', key('task', id), 'finished_by') == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
redis.call('HSET', key('task', id), 'finished_by', epoch, 'manifest', ARGV[6])
redis.call('HDEL', key('task', id), 'error', 'retry_at')
finish(id, state, '"manifest":' .. (ARGV[6] == '' and 'null' or cjson.encode(ARGV[6])) .. ',"receipt":' .. ARGV[7])
return { 'done', unpack(bells) }
