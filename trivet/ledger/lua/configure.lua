-- Changes one entry of collections, pauses or weights. ARGV: …, HSET, HSETNX or HDEL, key, field, value → {entries changed}
if ARGV[3] == 'HDEL' then return { redis.call('HDEL', ARGV[4], ARGV[5]) } end
return { redis.call(ARGV[3], ARGV[4], ARGV[5], ARGV[6]) }
