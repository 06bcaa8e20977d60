-- Runs a failed or cancelled task again. ARGV: …, task, full URL or '' → {outcome, state, bells…}
local id = ARGV[3]
local t = redis.call('HMGET', key('task', id), 'state', 'secret', 'kind', 'config')
if not t[1] then return { 'unknown', '' } end
if not TERMINAL[t[1]] then return { 'running', t[1] } end
if t[1] ~= 'failed' and t[1] ~= 'cancelled' then return { 'ended', t[1] } end
if ARGV[4] ~= '' then
  redis.call('SET', key('url', id), ARGV[4])
  redis.call('HSET', key('task', id), 'secret', 1)
elseif t[2] and redis.call('PERSIST', key('url', id)) == 0 and redis.call('EXISTS', key('url', id)) == 0 then
  return { 'url_gone', t[1] }
end
redis.call('ZREM', key('terminal'), id)
redis.call('ZREM', key('dead'), id)
-- The pipeline stays as it was accepted; the model that it resolves to is looked up anew.
redis.call('HDEL', key('task', id), 'error', 'retry_at', 'ended', 'failed_by', 'finished_by', 'staged_by', 'spec_hash',
  'generation', 'source_sha256', 'shards', 'shards_done', 'tokens', 'tokens_done', 'pages', 'chunks', 'queue', 'manifest',
  'told')
redis.call('HINCRBY', key('task', id), 'run', 1)
enter(id)
return { 'retried', redis.call('HGET', key('task', id), 'state'), unpack(bells) }
