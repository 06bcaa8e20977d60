local namespace, kind, id, name, body = unpack(ARGV)
local found = row(namespace, kind, id)
if found[2] then
  return {'there', unpack(found)}
end
if name ~= '' then
  local other = redis.call('HGET', key('resource_names', namespace, kind), name)
  if other then
    return {'taken', other}
  end
  redis.call('HSET', key('resource_names', namespace, kind), name, id)
end
local number = redis.call('INCR', key('resource_number'))
redis.call('HSET', key('resource', namespace, kind, id), 'name', name, 'body', body, 'version', 1, 'number', number)
redis.call('ZADD', key('resources', namespace, kind), number, id)
return {'made', name, body, '1', tostring(number)}
