-- KEYS: in flight, lease, daemons, dead. ARGV: lease in ms, daemon, how many may be dead, number of the take, how
-- many die now, for each the entry and what is kept of it, then what stays in flight, oldest first.
local inflight, dead = KEYS[4], KEYS[7]
if (redis.call('HGET', counts, 'flight:' .. ARGV[2]) or '0') ~= ARGV[4] then return report() end
local dying = tonumber(ARGV[5])
for i = 0, dying - 1 do
  if redis.call('LREM', inflight, 1, ARGV[6 + 2 * i]) > 0 then
    redis.call('LPUSH', dead, ARGV[7 + 2 * i])
    count('dead', 1)
    count('in_flight', -1)
  end
end
if dying > 0 then redis.call('LTRIM', dead, 0, tonumber(ARGV[3]) - 1) end
local kept = #ARGV - 5 - 2 * dying
local settled = redis.call('LLEN', inflight) - kept
redis.call('DEL', inflight)  -- first, so that settling works when memory is full
count('stored', settled)
count('in_flight', -settled)
if kept > 0 then
  redis.call('LPUSH', inflight, unpack(ARGV, #ARGV - kept + 1))
  redis.call('SET', KEYS[5], '1', 'PX', ARGV[1])
  redis.call('SADD', KEYS[6], ARGV[2])
end
return report()
