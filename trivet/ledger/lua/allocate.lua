-- Gives a task its generation and freezes its spec, once. ARGV: …, item, epoch, floor, spec hash or '', spec json
-- → {outcome, generation, the spec hash that is frozen}
local item, id = ARGV[3], task_of(ARGV[3])
if not held(item, ARGV[4]) then return { 'lost' } end
if ARGV[6] ~= '' and redis.call('HSETNX', key('task', id), 'spec_hash', ARGV[6]) == 1 then
  redis.call('SET', key('spec', ARGV[6]), ARGV[7])
end
local generation = tonumber(redis.call('HGET', key('task', id), 'generation') or '')
if not generation then generation = next_generation(id, ARGV[5]) end
return { 'allocated', generation, redis.call('HGET', key('task', id), 'spec_hash') or '' }
