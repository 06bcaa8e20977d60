-- From here on a cancel is too late. ARGV: …, item, epoch → {outcome, part json…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if not held(item, epoch) then return { 'lost' } end
set_state(id, 'committing')
local out = redis.call('HVALS', key('parts', id)) -- too many to unpack() in a big object
table.insert(out, 1, 'committing')
return out
