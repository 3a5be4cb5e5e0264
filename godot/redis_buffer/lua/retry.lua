-- Put dead entries back as the oldest of the queue, as many as there is room for; return how many.
-- KEYS: dead. ARGV: bound, and for each its grave and the entry, oldest first.
local room = tonumber(ARGV[1]) - redis.call('LLEN', queue)
local moved = 0
notice_strangers()
for i = math.min(room, (#ARGV - 1) / 2), 1, -1 do
  if redis.call('LREM', KEYS[4], -1, ARGV[2 * i]) > 0 then
    redis.call('RPUSH', queue, ARGV[2 * i + 1])
    moved = moved + 1
  end
end
count('dead', -moved)
done()
return moved
