-- Looks at what stands in one line, set of suspects, set of parked items or set of held ones: `kind` says which.
-- ARGV: …, repair, kind, key, stage or '', flow or '', queue or '', scope or owner or '', items… → {json of a finding…}
local repair, kind, place = ARGV[3] == '1', ARGV[4], ARGV[5]
local stage, queue_flow, queue, name = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local sorted = kind == 'line' or kind == 'suspects' or kind == 'leases' or kind == 'due'
local out = {}
local function found(code, where, detail, fix)
  table.insert(out, cjson.encode({ code = code, where = where, detail = detail, repaired = repair }))
  if repair then fix() end
end

local function take_out(item)
  redis.call(sorted and 'ZREM' or 'SREM', place, item)
  if kind == 'line' then left_line(stage, queue, queue_flow, 0) end
end

if kind == 'line' and redis.call('EXISTS', place) == 1 and
  not (redis.call('SISMEMBER', key('lines', stage, queue_flow), queue) == 1 and redis.call('ZSCORE', key('vt', stage), queue_flow)) then
  found('line_unlisted', stage .. ' ' .. queue_flow .. ' ' .. queue, 'no claim would look into the line', function()
    redis.call('SADD', key('lines', stage, queue_flow), queue)
    redis.call('ZADD', key('vt', stage), 'NX', tonumber(redis.call('HGET', key('vtlast', stage), '*') or 0), queue_flow)
  end)
end

for i = 10, #ARGV do
  local item = ARGV[i]
  local there
  if sorted then there = redis.call('ZSCORE', place, item) else there = redis.call('SISMEMBER', place, item) == 1 end
  if there then
    local h = redis.call('HMGET', key('item', item), 'stage', 'flow', 'queue', 'parked', 'owner', 'state')
    local t = redis.call('HGET', key('task', task_of(item) or item), 'state')
    if not h[1] or not t then
      found('ghost', item, 'it stands in ' .. kind .. ' and is no work of any task', function()
        take_out(item)
        if kind == 'line' or kind == 'suspects' then counted(stage, queue, -1) end
        if not t then redis.call('DEL', key('item', item)) end
      end)
    elseif kind == 'line' and (h[1] ~= stage or h[2] ~= queue_flow or h[3] ~= queue) or
      kind == 'suspects' and (h[1] ~= stage or h[3] ~= queue) or
      kind == 'parked' and h[4] ~= name or
      kind == 'held' and (h[5] ~= name or h[6] ~= 'leased') then
      found('item_doubled', item, 'it stands also in ' .. kind .. ' ' .. (name ~= '' and name or queue), function() take_out(item) end)
    end
  end
end
return out
