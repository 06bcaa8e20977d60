-- From here on a cancel is too late. ARGV: …, item, epoch → {outcome, part json…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if not held(item, epoch) then return { 'lost' } end
set_state(id, 'committing')
return { 'committing', unpack(redis.call('HVALS', key('parts', id))) }
