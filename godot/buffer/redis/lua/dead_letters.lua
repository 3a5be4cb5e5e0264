-- Return how many dead entries are kept, and some of them, oldest first. ARGV: how many to skip, how many to return,
-- bytes.
local skip, limit, room = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local records, at = {redis.call('LLEN', dead)}, -1 - skip
while #records <= limit and room > 0 do
  local record = redis.call('LINDEX', dead, at)
  if not record then break end
  records[#records + 1] = record
  room = room - #record
  at = at - 1
end
return records
