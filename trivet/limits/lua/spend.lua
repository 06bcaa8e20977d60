-- A fixed window. KEYS[1]: the name.
-- ARGV: limit, seconds of a window, cost → whether it is allowed, what is spent, microseconds to the window's end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000000, tonumber(ARGV[3])
local nth = math.floor(now / window)
local left = (nth + 1) * window - now
local kept = redis.call('HMGET', KEYS[1], 'nth', 'spent')
local spent = tonumber(kept[1]) == nth and tonumber(kept[2]) or 0
local allowed = spent + cost <= limit
if allowed and cost > 0 then
  spent = spent + cost
  redis.call('HSET', KEYS[1], 'nth', nth, 'spent', spent)
  redis.call('PEXPIRE', KEYS[1], math.ceil(left / 1000) + 1)
end
return { allowed and 1 or 0, spent, string.format('%.0f', left) }
