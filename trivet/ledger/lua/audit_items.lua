-- Looks for work items of tasks that are gone or know nothing of them. ARGV: …, repair, items… → {json of a finding…}
local repair, out = ARGV[3] == '1', {}
for i = 4, #ARGV do
  local item = ARGV[i]
  local id, stage, n = string.match(item, '^([^/]+)/([^/]+)/(%d+)$')
  if redis.call('EXISTS', key('item', item)) == 1 then
    local t = id and redis.call('HMGET', key('task', id), 'state', 'shards') or {}
    if not id or not t[1] and redis.call('EXISTS', key('task', id)) == 0 or
      stage == 'embed' and tonumber(n) >= tonumber(t[2] or 0) then
      table.insert(out, cjson.encode({ code = 'item_extra', where = item, detail = 'no task asks for it', repaired = repair }))
      if repair then
        -- One that lacks what says where it stands is only removed; what is left of it in lines is found there.
        local h = redis.call('HMGET', key('item', item), 'stage', 'queue', 'flow')
        if h[1] and h[2] and h[3] then forget(item) else redis.call('DEL', key('item', item)) end
      end
    end
  end
end
return out
