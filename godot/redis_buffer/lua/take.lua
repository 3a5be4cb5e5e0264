-- KEYS: in flight, lease, daemons. ARGV: limit, bytes, lease in ms, daemon.
-- Nothing is written when there is nothing to take: an idle sender looks often.
-- What is taken gets a number, the first in the answer, which it has until it is settled or handed back: a settlement
-- may still be on its way when its sender has long given it up, and must not settle what was taken since.
local inflight, flight = KEYS[4], 'flight:' .. ARGV[4]
local taken = redis.call('LRANGE', inflight, 0, -1)
if #taken > 0 then
  local oldest_first = {tonumber(redis.call('HGET', counts, flight) or 0)}
  for i = #taken, 1, -1 do oldest_first[#oldest_first + 1] = taken[i] end
  return oldest_first
end
if redis.call('LLEN', queue) == 0 then return {} end
redis.call('DEL', KEYS[5])  -- a script whose first write frees memory may go on when memory is full
notice_strangers()
local limit, room = tonumber(ARGV[1]), tonumber(ARGV[2])
while #taken < limit and room > 0 do
  local entry = redis.call('RPOPLPUSH', queue, inflight)
  if not entry then break end
  taken[#taken + 1] = entry
  room = room - #entry
end
count('in_flight', #taken)
redis.call('SET', KEYS[5], '1', 'PX', ARGV[3])
redis.call('SADD', KEYS[6], ARGV[4])
done()
table.insert(taken, 1, redis.call('HINCRBY', counts, flight, 1))
return taken
