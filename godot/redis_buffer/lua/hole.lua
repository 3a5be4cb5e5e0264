-- Return the entry that tells of a run of drops; or the run itself, when it is over and has no such entry yet; or
-- nothing. KEYS: hole. ARGV: bound, bound in bytes, and, to make it its entry or to have that one confirmed: what was
-- returned before, joined, and the entry.
local waiting = redis.call('GET', KEYS[4])
if waiting then
  if ARGV[3] == waiting then  -- a write, so that WAIT behind it waits for this entry; room first, as below
    redis.call('DEL', KEYS[4])
    redis.call('SET', KEYS[4], waiting)
  end
  return {waiting}
end
-- A run is over when there is room again: `has_room_again` in `godot.buffer`.
if redis.call('LLEN', queue) * 10 > tonumber(ARGV[1]) * 9 then return {} end
if counted('bytes') * 10 > tonumber(ARGV[2]) * 9 then return {} end
local run = redis.call('HGETALL', drops)
if #run > 0 and ARGV[3] == table.concat(run, '\0') then
  redis.call('DEL', drops)  -- first, so that it works when memory is full
  redis.call('SET', KEYS[4], ARGV[4])
  return {ARGV[4]}
end
return run
