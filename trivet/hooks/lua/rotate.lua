-- Makes a secret the current one; those before it verify along until the overlap ends.
-- ARGV: …, id, secret, overlap ms → 1, or 0 where there is no such hook
local h = key('hook', ARGV[3])
local text = redis.call('HGET', h, 'secrets')
if not text then return 0 end
local kept, secret = {}, ARGV[4]
for _, old in ipairs(cjson.decode(text)) do
  if old.value == secret then return 1 end
  old.expires = math.min(old.expires or math.huge, now + tonumber(ARGV[5]))
  if old.expires > now then table.insert(kept, old) end
end
table.insert(kept, 1, { value = secret })
redis.call('HSET', h, 'secrets', cjson.encode(kept))
return 1
