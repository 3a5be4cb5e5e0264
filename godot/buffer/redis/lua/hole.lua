-- Return the entry that tells of a run of drops; or the run itself, when it is over and has no such entry yet; or
-- nothing. KEYS: hole. ARGV, to give the run its entry or to have that confirmed: what was returned before, joined, and
-- the entry.
local hole, seen, entry = KEYS[5], ARGV[6], ARGV[7]
local waiting = redis.call('GET', hole)
if waiting then
  if seen == waiting then  -- a write, so that a WAIT after it waits for this entry; DEL first, as below
    redis.call('DEL', hole)
    redis.call('SET', hole, waiting)
  end
  return {waiting}
end
-- A run is over when there is room again: `has_room_again` in `godot.buffer.protocol`.
if redis.call('LLEN', queue) * 10 > max_size * 9 then return {} end
if counted('bytes') * 10 > max_bytes * 9 then return {} end
local run = redis.call('HGETALL', drops)
if #run > 0 and seen == table.concat(run, '\0') then
  redis.call('DEL', drops)  -- first, so that it works when memory is full
  redis.call('SET', hole, entry)
  return {entry}
end
return run
