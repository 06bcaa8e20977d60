local at, new, milliseconds = key('seed', ARGV[1], ARGV[2]), ARGV[3], ARGV[4]
redis.call('SET', at, new, 'NX', 'PX', milliseconds)
return redis.call('GET', at)
