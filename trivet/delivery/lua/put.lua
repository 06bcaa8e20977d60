-- Puts events in line for one endpoint: a replay, a test. ARGV: …, id, operation (empty: only what never was in line),
-- then event id, stream id, kind, body of each → how many were put in line, -1 where there is no such endpoint,
-- -2 where too many wait already
local id, op = ARGV[3], ARGV[4]
if redis.call('EXISTS', key('endpoint', id)) == 0 then return -1 end
if redis.call('ZCARD', key('outgoing', id)) >= MOST_WAITING then return -2 end
local made = 0
for i = 5, #ARGV, 4 do made = made + enqueue(id, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], op) end
return made
