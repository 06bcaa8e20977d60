-- Prepare is done: its shards wait for an embed worker. ARGV: …, item, epoch, queue, source sha256, pages, chunks,
-- bytes fetched, then per shard its tokens and the hash of its inputs → {outcome, bells…}
local item, epoch, id = ARGV[3], ARGV[4], task_of(ARGV[3])
if redis.call('HGET', key('task', id), 'staged_by') == epoch then return { 'again' } end
if not held(item, epoch) then return { 'lost' } end
local t = redis.call('HMGET', key('task', id), 'cost', 'lane', 'namespace')
local shards, tokens = shards_of(10)
redis.call('HSET', key('task', id), 'staged_by', epoch, 'source_sha256', ARGV[6], 'pages', ARGV[7], 'chunks', ARGV[8],
  'tokens', tokens, 'shards', #shards, 'queue', ARGV[5], 'told', now)
redis.call('HDEL', key('task', id), 'error', 'retry_at')
-- The claim was charged an estimate; the flow pays for the bytes that it really took.
local flow = flow_of(t[2], t[3])
local more = (tonumber(ARGV[9]) - tonumber(t[1])) / weight_of(flow)
if redis.call('ZSCORE', key('vt', 'prepare'), flow) then
  redis.call('ZINCRBY', key('vt', 'prepare'), more, flow)
else
  redis.call('HINCRBYFLOAT', key('vtlast', 'prepare'), flow, more)
end
forget(item)
embed(id, ARGV[5], shards)
emit(id, 'ingest.started', '"pages":' .. ARGV[7] .. ',"chunks":' .. ARGV[8] .. ',"tokens":' .. tokens ..
  ',"shards":' .. #shards)
return { 'staged', unpack(bells) }
