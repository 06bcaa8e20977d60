-- Forgets a hook; what is known of its deliveries expires by itself. ARGV: …, id
local namespace = redis.call('HGET', key('hook', ARGV[3]), 'namespace')
if namespace then redis.call('SREM', key('hooks', namespace), ARGV[3]) end
return redis.call('DEL', key('hook', ARGV[3]))
