-- One process at a time does some kind of work. ARGV: …, name of the turn, process, take | keep | end, ms of silence
-- after which it is over → 1 where the turn is (was) this process'. `take` begins one where nobody has it; `keep` does
-- not: whoever was silent for so long cannot know what others have done meanwhile.
local turn, owner, what = key(ARGV[3]), ARGV[4], ARGV[5]
local has = redis.call('GET', turn)
if what == 'end' then return has == owner and redis.call('DEL', turn) or 0 end
if has ~= owner and (has or what == 'keep') then return 0 end
redis.call('SET', turn, owner, 'PX', ARGV[6])
redis.call('SET', key(ARGV[3], 'seen'), now)
return 1
