-- KEYS: hole. ARGV: the entry, and what is kept of it when it was refused.
local hole, entry, record = KEYS[5], ARGV[6], ARGV[7]
if redis.call('GET', hole) == entry then
  redis.call('DEL', hole)
  count('received', 1)
  if record then bury(record) else count('stored', 1) end
end
return report()
