-- Return nothing when another daemon handed back what this sender took.
-- KEYS: in flight, lease, daemons, flight. ARGV: lease in ms, daemon, name of the take, how many die now, for each of
-- them the entry and what is kept of it, then what stays in flight, oldest first.
local inflight, lease, daemons, flight = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local lease_ms, daemon, name, dying = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
if (redis.call('GET', flight) or '') ~= name then return {} end
local there = redis.call('LLEN', inflight)
redis.call('DEL', lease)  -- a script whose first write frees memory may go on when memory is full
recount('in_flight', there)
for i = 0, dying - 1 do
  if redis.call('LREM', inflight, 1, ARGV[10 + 2 * i]) > 0 then
    bury(ARGV[11 + 2 * i])
    count('in_flight', -1)
  end
end
local kept = #ARGV - 9 - 2 * dying
local settled = redis.call('LLEN', inflight) - kept
redis.call('DEL', inflight)
count('stored', settled)
count('in_flight', -settled)
if kept > 0 then
  redis.call('LPUSH', inflight, unpack(ARGV, #ARGV - kept + 1))
  redis.call('SET', lease, '1', 'PX', lease_ms)
  redis.call('SADD', daemons, daemon)
end
return report()
