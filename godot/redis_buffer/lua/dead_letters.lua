-- Return how many dead entries are kept, and some of them, oldest first. KEYS: dead. ARGV: how many to skip, how
-- many to return, bytes.
local graves, room = {redis.call('LLEN', KEYS[4])}, tonumber(ARGV[3])
local at = -1 - tonumber(ARGV[1])
while #graves <= tonumber(ARGV[2]) and room > 0 do
  local grave = redis.call('LINDEX', KEYS[4], at)
  if not grave then break end
  graves[#graves + 1] = grave
  room = room - #grave
  at = at - 1
end
return graves
