-- Delete dead entries for ever; return how many. They stay counted as dead. ARGV: their records.
local purged = 0
weigh_dead()
for i = 6, #ARGV do
  local gone = redis.call('LREM', dead, -1, ARGV[i])
  count('dead_bytes', -gone * #ARGV[i])
  purged = purged + gone
end
return purged
