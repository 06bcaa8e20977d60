-- Adds up the keys that a purge has removed, once. ARGV: …, key of what was noted, key of the sums → how many
local noted = redis.call('HVALS', ARGV[3])
for _, text in ipairs(noted) do
  local kind, size = string.match(text, '^(%S+) (%d+)$')
  redis.call('HINCRBY', ARGV[4], 'keys:' .. kind, 1)
  redis.call('HINCRBY', ARGV[4], 'bytes:' .. kind, size)
end
redis.call('DEL', ARGV[3])
return #noted
