-- KEYS: hole, dead. ARGV: the entry, how many may be dead, and what is kept of it when it was refused.
if redis.call('GET', KEYS[4]) == ARGV[1] then
  redis.call('DEL', KEYS[4])
  count('received', 1)
  if ARGV[3] then
    redis.call('LPUSH', KEYS[5], ARGV[3])
    redis.call('LTRIM', KEYS[5], 0, tonumber(ARGV[2]) - 1)
    count('dead', 1)
  else
    count('stored', 1)
  end
end
return report()
