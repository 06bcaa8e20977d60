-- Looks at which tasks the rows of objects name. ARGV: …, repair, keys of objects… → {json of a finding…}
local repair, out = ARGV[3] == '1', {}
local function live(id)
  local state = redis.call('HGET', key('task', id), 'state')
  return state and not TERMINAL[state] or redis.call('EXISTS', key('purge_shut', id)) == 1 or
    not state and redis.call('EXISTS', key('task', id)) == 1
end
for i = 4, #ARGV do
  local object = ARGV[i]
  local o = redis.call('HMGET', object, 'active', 'waiting')
  local wrong = nil
  if o[1] and not live(o[1]) then
    wrong = 'its active task ' .. o[1] .. ' has ended or is gone'
  elseif o[2] and not live(o[2]) then
    wrong = 'its waiting task ' .. o[2] .. ' has ended or is gone'
  elseif o[2] and not o[1] then
    wrong = 'task ' .. o[2] .. ' waits and none is active'
  end
  if wrong then
    local where = string.sub(object, #P + 1)
    table.insert(out, cjson.encode({ code = 'object_row', where = where, detail = wrong, repaired = repair }))
    if repair then
      if o[1] and not live(o[1]) then
        redis.call('HDEL', object, 'active')
        o[1] = false
      end
      if o[2] and (not o[1] or not live(o[2])) then
        redis.call('HDEL', object, 'waiting')
        if live(o[2]) then start(o[2]) end
      end
    end
  end
end
return out
