-- Return how many dead entries are kept, and some of them, oldest first. ARGV: how many to skip, how many to return,
-- bytes.
local skip, limit, room = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local graves, at = {redis.call('LLEN', dead)}, -1 - skip
while #graves <= limit and room > 0 do
  local grave = redis.call('LINDEX', dead, at)
  if not grave then break end
  graves[#graves + 1] = grave
  room = room - #grave
  at = at - 1
end
return graves
