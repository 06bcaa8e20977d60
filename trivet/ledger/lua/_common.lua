-- Shared by all ledger scripts: loaded in front of each. KEYS[1] is the prefix of every key, ARGV[1] the namespace of
-- event ids in hex, ARGV[2] for how many ms the URL of a task that ended badly is kept.
-- Time is Redis' own; a worker's clock decides nothing here.

local P = KEYS[1]
local function key(...) return P .. table.concat({...}, ':') end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) -- milliseconds

-- A ledger of another version is left alone. The first one had no number.
local SCHEMA = '2'
local schema = redis.call('GET', key('schema'))
if not schema then
  schema = redis.call('EXISTS', key('states')) == 1 and '1' or SCHEMA
  redis.call('SET', key('schema'), schema)
end
if schema ~= SCHEMA then return redis.error_reply('SCHEMA ' .. schema) end

-- lane → its order in the name of a flow, and its weight
local LANES = { interactive = { '0', 64 }, normal = { '1', 8 }, bulk = { '2', 1 } }
local FLOWS = 64 -- flows that a claim looks at in one go, and
local MOST_FLOWS = 1024 -- in all: those whose encoder nobody here serves stand in front for ever
local BELL_TTL = 30000 -- ms after which a doorbell that nobody answered counts as lost, until the sweep says otherwise
local MOST_DEAF = 7 -- a door that nobody answers is rung less and less, down to once in that time * 2^7

local function flow_of(lane, namespace) return LANES[lane][1] .. '|' .. namespace end

local function weight_of(flow)
  local order, namespace = string.match(flow, '^(%d)|(.*)$')
  local share
  for _, lane in pairs(LANES) do
    if lane[1] == order then share = lane[2] end
  end
  return share * (tonumber(redis.call('HGET', key('weights'), namespace)) or 1)
end

-- ------------------------------------------------------------------ events

-- Days since 1970-01-01 to year, month, day: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function rfc3339(ms)
  local seconds = math.floor(ms / 1000)
  local days, rest = math.floor(seconds / 86400), seconds % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(rest / 3600),
    math.floor(rest / 60) % 60, rest % 60, ms % 1000)
end

-- uuid5 of RFC 9562 in the namespace of trivet.ids.EVENT_NAMESPACE, whose bytes come as ARGV[1] in hex.
local function uuid5(name)
  local space = string.gsub(ARGV[1], '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
  local hex = redis.sha1hex(space .. name)
  local variant = string.format('%x', tonumber(string.sub(hex, 17, 17), 16) % 4 + 8)
  return string.sub(hex, 1, 8) .. '-' .. string.sub(hex, 9, 12) .. '-5' .. string.sub(hex, 14, 16) .. '-' ..
    variant .. string.sub(hex, 18, 20) .. '-' .. string.sub(hex, 21, 32)
end

-- Whether one stream id comes before another.
local function before(a, b)
  local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
  a1, b1 = tonumber(a1), tonumber(b1)
  return a1 < b1 or a1 == b1 and tonumber(a2) < tonumber(b2)
end

-- Appends a CloudEvent in the same script as the transition it tells of: neither is ever without the other.
-- `extra` is the inside of a JSON object, such as '"receipt":{…}', or ''.
-- `nth` tells several of one kind and run apart.
local function emit(id, kind, extra, nth)
  local t = redis.call('HMGET', key('task', id), 'namespace', 'collection', 'object', 'url', 'run', 'state', 'lane', 'generation')
  local run = tonumber(t[5])
  local data = cjson.encode({
    task_id = id, namespace = t[1], collection = t[2], object_id = t[3], url = t[4], run = run, state = t[6], lane = t[7],
    generation = tonumber(t[8] or '')
  })
  if extra ~= '' then data = string.sub(data, 1, -2) .. ',' .. extra .. '}' end
  local head = cjson.encode({
    specversion = '1.0', id = uuid5(id .. '/' .. run .. '/' .. kind .. (nth and '/' .. nth or '')), source = 'trivet/' .. t[1] .. '/' .. t[2],
    type = 'trivet.' .. kind, subject = t[3], time = rfc3339(now), datacontenttype = 'application/json'
  })
  redis.call('XADD', key('events'), '*', 'event', string.sub(head, 1, -2) .. ',"data":' .. data .. '}')
end

-- ------------------------------------------------------------------ doorbells

-- Rings for a queue unless 2 x workers doorbells stand there already; what is to be sent is gathered in `bells`.
local bells, crowded = {}, {}
local function ring(stage, queue)
  local door = stage == 'embed' and queue or 'any'
  if crowded[stage .. door] then return end
  local standing, deaf = key('bells', stage, door), key('deaf', stage, door)
  local ttl = tonumber(redis.call('GET', key('bell_ttl')) or BELL_TTL)
  local patience = ttl * 2 ^ math.min(tonumber(redis.call('GET', deaf) or 0), MOST_DEAF)
  if redis.call('ZREMRANGEBYSCORE', standing, '-inf', now - patience) > 0 then
    redis.call('INCR', deaf)
    redis.call('PEXPIRE', deaf, ttl * 2 ^ (MOST_DEAF + 1))
  end
  if redis.call('ZCARD', standing) < 2 * math.max(1, redis.call('HLEN', key('slots', stage))) then
    local id = tostring(redis.call('INCR', key('bell')))
    redis.call('ZADD', standing, now, id)
    table.insert(bells, stage .. '|' .. door .. '|' .. id)
  else
    crowded[stage .. door] = true
  end
end
