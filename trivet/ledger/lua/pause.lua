-- Puts aside what waits in one line of a scope that is paused. ARGV: …, scope, stage, flow, queue, offset, most
-- → {items looked at, items that stay in the line}
local scope, line = ARGV[3], key('line', ARGV[4], ARGV[5], ARGV[6])
local offset, limit = tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('HEXISTS', key('paused'), scope) == 0 then return { 0, 0 } end
local items, stay = redis.call('ZRANGE', line, offset, offset + limit - 1), 0
for _, item in ipairs(items) do
  -- Another collection of the line may be paused, too: each item waits for its own.
  local own = scope_of(item)
  if own then park(item, own) else stay = stay + 1 end
end
return { #items, stay }
