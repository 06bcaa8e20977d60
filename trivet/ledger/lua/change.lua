-- Changes a collection that nobody else has changed. ARGV: …, namespace, collection, its JSON as it was, as it is to be,
-- how many tasks it has taken in, or '' for any number → {1 or 0}
local collections, name = key('collections', ARGV[3]), ARGV[4]
if redis.call('HGET', collections, name) ~= ARGV[5] then return { 0 } end
if ARGV[7] ~= '' and (redis.call('HGET', key('taken', ARGV[3]), name) or '0') ~= ARGV[7] then return { 0 } end
redis.call('HSET', collections, name, ARGV[6])
return { 1 }
