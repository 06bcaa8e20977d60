-- Reads the next events of the stream and puts each in line for the endpoints that want it; an event is read, put in
-- line and acknowledged in one step. ARGV: …, most events → {read, deliveries made, unreadable, stream id up to which
-- all is read}
local most = tonumber(ARGV[3])
if redis.call('ZCARD', key('endpoints')) == 0 then
  local newest = redis.call('XREVRANGE', key('events'), '+', '-', 'COUNT', 1)[1]
  return { 0, 0, 0, newest and newest[1] or '0-0' }
end

local function page(from)
  local answer = redis.pcall('XREADGROUP', 'GROUP', GROUP, 'fan-out', 'COUNT', most, 'STREAMS', key('events'), from)
  if answer and answer.err then
    -- The group is gone though there are endpoints: each of them knows where it begins.
    redis.call('XGROUP', 'CREATE', key('events'), GROUP, '0', 'MKSTREAM')
    return page(from)
  end
  return answer and answer[1] and answer[1][2] or {}
end

local spaces = {}
local function endpoints_of(namespace)
  if not spaces[namespace] then
    local found = {}
    for _, id in ipairs(redis.call('SMEMBERS', key('endpoints', namespace))) do
      local e = redis.call('HMGET', key('endpoint', id), 'kinds', 'collections', 'since', 'state', 'missed', 'missed_until')
      local wants = { id = id, since = e[3], state = e[4], missed = e[5], missed_until = e[6] }
      for field, text in pairs({ kinds = e[1], collections = e[2] }) do
        local names = cjson.decode(text)
        if #names > 0 then
          wants[field] = {}
          for _, name in ipairs(names) do wants[field][name] = true end
        end
      end
      table.insert(found, wants)
    end
    spaces[namespace] = found
  end
  return spaces[namespace]
end

local function readable(body)
  local ok, event = pcall(cjson.decode, body)
  if not ok or type(event) ~= 'table' or type(event.id) ~= 'string' or type(event.type) ~= 'string' then return nil end
  local data = event.data
  if type(data) ~= 'table' or type(data.namespace) ~= 'string' then return nil end
  return event, string.gsub(event.type, '^trivet%.', ''), data
end

local function put(endpoint, event, entry, kind, body)
  if endpoint.state == 'active' and redis.call('ZCARD', key('outgoing', endpoint.id)) >= MOST_WAITING then
    pause(endpoint.id, 'More than ' .. MOST_WAITING .. ' events wait for it.')
    endpoint.state = 'paused'
  end
  if endpoint.state == 'active' then return enqueue(endpoint.id, event.id, entry, kind, body, '') end
  if not endpoint.missed or before(entry, endpoint.missed) then
    endpoint.missed = entry
    redis.call('HSET', key('endpoint', endpoint.id), 'missed', entry)
  end
  if not endpoint.missed_until or before(endpoint.missed_until, entry) then
    endpoint.missed_until = entry
    redis.call('HSET', key('endpoint', endpoint.id), 'missed_until', entry)
  end
  return 0
end

local read, made, unreadable = 0, 0, 0
-- What was read and not acknowledged comes first. There is none unless a server died in the middle of this.
local entries = page('0')
if #entries == 0 then entries = page('>') end
for _, entry in ipairs(entries) do
  local id, body = entry[1], nil
  local fields = entry[2] or {}
  for i = 1, #fields, 2 do if fields[i] == 'event' then body = fields[i + 1] end end
  local event, kind, data = readable(body)
  if event then
    for _, endpoint in ipairs(endpoints_of(data.namespace)) do
      if before(endpoint.since, id) and (not endpoint.kinds or endpoint.kinds[kind]) and
        (not endpoint.collections or endpoint.collections[data.collection or '']) then
        made = made + put(endpoint, event, id, kind, body)
      end
    end
  else
    unreadable = unreadable + 1
  end
  redis.call('XACK', key('events'), GROUP, id)
  read = read + 1
end

local function position()
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key('events'))) do
    local facts = {}
    for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
    if facts.name == GROUP then return facts['last-delivered-id'] end
  end
end
return { read, made, unreadable, position() }
