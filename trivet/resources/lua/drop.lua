-- At most so many at once: whoever works holds all others up. Returns how many are left.
local namespace, kind, most = unpack(ARGV)
for _, id in ipairs(redis.call('ZRANGE', key('resources', namespace, kind), 0, tonumber(most) - 1)) do
  forget(namespace, kind, id)
end
return redis.call('ZCARD', key('resources', namespace, kind))
