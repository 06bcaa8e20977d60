-- Prepare is done: its shards wait for an embed worker. ARGV: …, item, epoch, queue, plan, pages, chunks, tokens,
-- bytes fetched, tokens of shard 0, 1, … → {outcome, bells…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if redis.call('HGET', key('task', id), 'staged_by') == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
local t = redis.call('HMGET', key('task', id), 'model', 'cost', 'lane', 'namespace')
redis.call('HSET', key('task', id), 'staged_by', epoch, 'plan', ARGV[6], 'pages', ARGV[7], 'chunks', ARGV[8],
  'tokens', ARGV[9], 'shards', #ARGV - 10, 'queue', ARGV[5])
redis.call('HDEL', key('task', id), 'error', 'retry_at')
-- The claim was charged an estimate; the flow pays for the bytes that it really took.
local flow = flow_of(t[3], t[4])
local more = (tonumber(ARGV[10]) - tonumber(t[2])) / weight_of(flow)
if redis.call('ZSCORE', key('vt', 'prepare', t[1]), flow) then
  redis.call('ZINCRBY', key('vt', 'prepare', t[1]), more, flow)
else
  redis.call('HINCRBYFLOAT', key('vtlast', 'prepare', t[1]), flow, more)
end
forget(item)
local ahead = 0
for i = 11, #ARGV do
  create(id, 'embed', ARGV[5], i - 11, tonumber(ARGV[i]), ahead)
  ahead = ahead + tonumber(ARGV[i])
end
redis.call('HINCRBY', key('staged'), t[1], ahead)
set_state(id, 'embedding')
emit(id, 'ingest.started', '"pages":' .. ARGV[7] .. ',"chunks":' .. ARGV[8] .. ',"tokens":' .. ARGV[9] ..
  ',"shards":' .. (#ARGV - 10))
return { 'staged', unpack(bells) }
