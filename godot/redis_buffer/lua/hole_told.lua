-- KEYS: hole, dead. ARGV: the entry, how many may be dead, of how many bytes, and what is kept of it when it was
-- refused.
if redis.call('GET', KEYS[4]) == ARGV[1] then
  redis.call('DEL', KEYS[4])
  count('received', 1)
  if ARGV[4] then
    weigh_dead(KEYS[5])
    bury(KEYS[5], ARGV[4])
    bound_dead(KEYS[5], tonumber(ARGV[2]), tonumber(ARGV[3]))
  else
    count('stored', 1)
  end
end
return report()
