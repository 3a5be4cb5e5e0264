-- Delete dead entries for ever; return how many. They stay counted as dead. KEYS: dead. ARGV: their graves.
local purged = 0
for i = 1, #ARGV do purged = purged + redis.call('LREM', KEYS[4], -1, ARGV[i]) end
return purged
