-- Counts tasks by state, and tokens that wait for an embed worker by model. ARGV: …, tasks… → {json of both}
local states, tokens = {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local t = redis.call('HMGET', key('task', id), 'state', 'shards', 'model')
  if t[1] then states[t[1]] = (states[t[1]] or 0) + 1 end
  if t[1] and not TERMINAL[t[1]] and t[3] then
    for n = 0, tonumber(t[2] or 0) - 1 do
      local cost = redis.call('HGET', key('item', id .. '/embed/' .. n), 'cost')
      if cost then tokens[t[3]] = (tokens[t[3]] or 0) + tonumber(cost) end
    end
  end
end
states['-'], tokens['-'] = 0, 0 -- an empty table would be a list in JSON
return { cjson.encode({ states = states, staged = tokens }) }
