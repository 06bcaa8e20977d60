-- ARGV: …, id, reason → 1, or 0 where it was paused already
return pause(ARGV[3], ARGV[4]) and 1 or 0
