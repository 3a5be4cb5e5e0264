-- Delete dead entries for ever; return how many. They stay counted as dead. KEYS: dead. ARGV: their graves.
local purged = 0
weigh_dead(KEYS[4])
for i = 1, #ARGV do
  local gone = redis.call('LREM', KEYS[4], -1, ARGV[i])
  count('dead_bytes', -gone * #ARGV[i])
  purged = purged + gone
end
return purged
