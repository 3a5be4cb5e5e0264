-- Put dead entries back as the oldest of the queue, as many as there is room for; return how many.
-- KEYS: dead. ARGV: bound, bound in bytes, and for each its grave and the entry, oldest first.
notice_strangers()
weigh_dead(KEYS[4])
recount('dead', redis.call('LLEN', KEYS[4]))
local room, room_bytes = tonumber(ARGV[1]) - redis.call('LLEN', queue), tonumber(ARGV[2]) - counted('bytes')
local fit = 0
while fit < math.min(room, (#ARGV - 2) / 2) do
  room_bytes = room_bytes - #ARGV[2 * fit + 4]
  if room_bytes < 0 then break end
  fit = fit + 1
end
local moved, bytes = 0, 0
for i = fit, 1, -1 do
  local grave, entry = ARGV[2 * i + 1], ARGV[2 * i + 2]
  if redis.call('LREM', KEYS[4], -1, grave) > 0 then
    redis.call('RPUSH', queue, entry)
    count('dead_bytes', -#grave)
    moved, bytes = moved + 1, bytes + #entry
  end
end
count('bytes', bytes)
count('dead', -moved)
done()
return moved
