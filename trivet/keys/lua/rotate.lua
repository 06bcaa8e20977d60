-- Makes a hash the current one; those before it are good until the overlap ends.
-- ARGV: …, id, hash, overlap ms → 1, 0 where there is no such key, -1 where it was revoked
local k = key('apikey', ARGV[3])
local text, revoked = unpack(redis.call('HMGET', k, 'hashes', 'revoked'))
if not text then return 0 end
if revoked then return -1 end
local kept, hash = {}, ARGV[4]
for _, old in ipairs(cjson.decode(text)) do
  if old.value == hash then return 1 end
  old.expires = math.min(old.expires or math.huge, now + tonumber(ARGV[5]))
  if old.expires > now then table.insert(kept, old) end
end
table.insert(kept, 1, { value = hash })
redis.call('HSET', k, 'hashes', cjson.encode(kept))
return 1
