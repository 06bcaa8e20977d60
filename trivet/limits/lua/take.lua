-- The generic cell rate algorithm; trivet/limits/rules.py explains it. KEYS[1]: the name.
-- ARGV: interval in microseconds, burst, cost → whether it is allowed, microseconds that the time lies ahead
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local moved = tat + interval * cost
local allowed = moved - now <= interval * burst
if allowed and cost > 0 then
  tat = moved
  -- Written out: Lua would give a number of this size an exponent.
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
end
return { allowed and 1 or 0, string.format('%.0f', tat - now) }
