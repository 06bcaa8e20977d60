-- Gives work items back: no attempt is charged, and they keep their place. ARGV: …, item, epoch, … → {bells…}
for i = 3, #ARGV, 2 do
  if held(ARGV[i], ARGV[i + 1]) then
    unlease(ARGV[i])
    push(ARGV[i], true)
  end
end
return bells
