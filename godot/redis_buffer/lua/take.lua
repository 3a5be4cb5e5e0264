-- KEYS: in flight, lease, daemons, flight. ARGV: limit, bytes, lease in ms, daemon, a name for this take, how long that
-- is kept in ms.
-- Nothing is written when there is nothing to take: an idle sender looks often.
-- What is taken has its name, the first in the answer, until it is handed back: a settlement may still be on its way
-- when its sender has long given it up, and must not settle what was taken since.
local inflight, flight = KEYS[4], KEYS[7]
local taken = redis.call('LRANGE', inflight, 0, -1)
if #taken > 0 then
  local name = redis.call('GET', flight)
  if not name then
    name = ARGV[5]
    redis.call('SET', flight, name, 'PX', ARGV[6])
  end
  recount('in_flight', #taken)
  local oldest_first = {name}
  for i = #taken, 1, -1 do oldest_first[#oldest_first + 1] = taken[i] end
  return oldest_first
end
if redis.call('LLEN', queue) == 0 then return {} end
redis.call('DEL', KEYS[5])  -- a script whose first write frees memory may go on when memory is full
notice_strangers()
local limit, room, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
while #taken < limit and bytes < room do
  local entry = redis.call('RPOPLPUSH', queue, inflight)
  if not entry then break end
  taken[#taken + 1] = entry
  bytes = bytes + #entry
end
count('bytes', -bytes)
count('in_flight', #taken)
redis.call('SET', KEYS[5], '1', 'PX', ARGV[3])
redis.call('SADD', KEYS[6], ARGV[4])
redis.call('SET', flight, ARGV[5], 'PX', ARGV[6])
done()
table.insert(taken, 1, ARGV[5])
return taken
