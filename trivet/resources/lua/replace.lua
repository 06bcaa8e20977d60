local namespace, kind, id, version, body = unpack(ARGV)
local at = key('resource', namespace, kind, id)
if redis.call('HGET', at, 'version') ~= version then
  return 0
end
redis.call('HSET', at, 'body', body, 'version', tonumber(version) + 1)
return 1
