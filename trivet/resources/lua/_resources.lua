-- A resource lies in a hash of its own; its kind has an index of names and one of numbers.
local prefix = KEYS[1]
local function key(...)
  return prefix .. table.concat({...}, ':')
end

local function row(namespace, kind, id)
  return redis.call('HMGET', key('resource', namespace, kind, id), 'name', 'body', 'version', 'number')
end

local function forget(namespace, kind, id)
  local name = redis.call('HGET', key('resource', namespace, kind, id), 'name')
  if not name then
    return 0
  end
  if name ~= '' and redis.call('HGET', key('resource_names', namespace, kind), name) == id then
    redis.call('HDEL', key('resource_names', namespace, kind), name)
  end
  redis.call('ZREM', key('resources', namespace, kind), id)
  redis.call('DEL', key('resource', namespace, kind, id), key('resource_links', namespace, id))
  return 1
end
