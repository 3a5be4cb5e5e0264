-- KEYS: in flight, lease, daemons, flight. ARGV: limit, bytes, lease in ms, daemon, a name for this take, how long the
-- name is kept in ms.
-- Nothing is written when there is nothing to take: an idle sender asks often.
-- The answer begins with a name, then '1' when others may have pushed some of what follows, else '0'. What is taken has
-- its name until it is handed back: a settlement may still be on its way when its sender gave it up long ago, and must
-- not settle what was taken since.
local inflight, lease, daemons, flight = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local limit, room, lease_ms, daemon, name, kept_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), unpack(ARGV, 8, 11)
local taken = redis.call('LRANGE', inflight, 0, -1)
if #taken > 0 then
  local before = redis.call('GET', flight)
  if not before then
    before = name
    redis.call('SET', flight, name, 'PX', kept_ms)
  end
  recount('in_flight', #taken)
  local oldest_first = {before, '1'}
  for i = #taken, 1, -1 do oldest_first[#oldest_first + 1] = taken[i] end
  return oldest_first
end
if redis.call('LLEN', queue) == 0 then return {} end
redis.call('DEL', lease)  -- a script whose first write frees memory may go on when memory is full
notice_strangers()
local unchecked = counted('unchecked') > 0 and '1' or '0'
local bytes, turned_away, gone = 0, 0, 0
while #taken < limit and bytes < room do
  local entry = redis.call('RPOPLPUSH', queue, inflight)
  if not entry then break end
  gone = gone + 1
  if #entry > entry_max_bytes then  -- not noticed before: its pusher took one away as well, or pushed it at the tail
    redis.call('LTRIM', inflight, 1, -1)
    bury_beginning(entry)
    turned_away = turned_away + #entry
  else
    taken[#taken + 1] = entry
    bytes = bytes + #entry
  end
end
count('bytes', -bytes - turned_away)
count('in_flight', #taken)
note_gone(gone)
if #taken > 0 then
  redis.call('SET', lease, '1', 'PX', lease_ms)
  redis.call('SADD', daemons, daemon)
  redis.call('SET', flight, name, 'PX', kept_ms)
end
done()
if #taken == 0 then return {} end
table.insert(taken, 1, unchecked)
table.insert(taken, 1, name)
return taken
