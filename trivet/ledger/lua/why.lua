-- Where the open work items of a task stand. ARGV: …, task, most shards → {json of an item…}
local id = ARGV[3]
local found = {}
local function look(stage, n)
  local item = id .. '/' .. stage .. '/' .. n
  local h = redis.call('HMGET', key('item', item), 'state', 'queue', 'flow', 'owner', 'attempts', 'expiries', 'suspect')
  if not h[1] then return end
  local view = {
    stage = stage, n = n, state = h[1], queue = h[2], worker = h[4] or nil, attempts = tonumber(h[5] or 0),
    expiries = tonumber(h[6] or 0), suspect = h[7] and true or false
  }
  if h[1] == 'pending' then
    local key_of = h[7] and key('suspects', stage, h[2]) or key('line', stage, h[3], h[2])
    view.ahead = redis.call('ZRANK', key_of, item) or nil
  elseif h[1] == 'leased' then
    view.lease_seconds = ((redis.call('ZSCORE', key('leases'), item) or now) - now) / 1000
  elseif h[1] == 'due' then
    view.retry_seconds = ((redis.call('ZSCORE', key('due'), item) or now) - now) / 1000
  end
  table.insert(found, cjson.encode(view))
end
look('prepare', 0)
look('commit', 0)
for n = 0, math.min(tonumber(redis.call('HGET', key('task', id), 'shards') or 0), tonumber(ARGV[4])) - 1 do look('embed', n) end
return found
