-- Whether a change of an object is the latest that came by. Sequencers are hex digits of any length, compared as text
-- with zeros put behind the shorter one. ARGV: …, hook, object, sequencer, kept ms → 1 or 0
local o = key('order', ARGV[3], ARGV[4])
local given, last = ARGV[5], redis.call('GET', o) or ''
local length = math.max(#given, #last)
local function padded(text) return text .. string.rep('0', length - #text) end
if padded(given) < padded(last) then return 0 end
redis.call('SET', o, given, 'PX', ARGV[6])
return 1
