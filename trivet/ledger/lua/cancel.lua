-- Cancels a task. ARGV: …, task → {outcome, state, bells…}
local id = ARGV[3]
local state = redis.call('HGET', key('task', id), 'state')
if not state then return { 'unknown', '' } end
if TERMINAL[state] then return { 'ended', state } end
if state == 'committing' then return { 'too_late', state } end
finish(id, 'cancelled', '"cancelled_in":"' .. state .. '"')
return { 'cancelled', 'cancelled', unpack(bells) }
