-- Put dead entries back as the oldest of the queue, as many as there is room for; return how many.
-- ARGV: for each its record and the entry, oldest first.
notice_strangers()
weigh_dead()
recount('dead', redis.call('LLEN', dead))
local room, room_bytes = max_size - redis.call('LLEN', queue), max_bytes - counted('bytes')
local fit = 0
while fit < math.min(room, (#ARGV - 5) / 2) do
  room_bytes = room_bytes - #ARGV[2 * fit + 7]
  if room_bytes < 0 then break end
  fit = fit + 1
end
local moved, bytes = 0, 0
for i = fit, 1, -1 do
  local record, entry = ARGV[2 * i + 4], ARGV[2 * i + 5]
  if redis.call('LREM', dead, -1, record) > 0 then
    redis.call('RPUSH', queue, entry)
    count('dead_bytes', -#record)
    moved, bytes = moved + 1, bytes + #entry
  end
end
count('bytes', bytes)
count('dead', -moved)
count('unchecked', moved)
done()
return moved
