-- Return nothing when what this sender took was handed back by another since.
-- KEYS: in flight, lease, daemons, flight, dead. ARGV: lease in ms, daemon, how many may be dead, of how many bytes,
-- name of the take, how many die now, for each the entry and what is kept of it, then what stays in flight, oldest first.
local inflight, dead = KEYS[4], KEYS[8]
if (redis.call('GET', KEYS[7]) or '') ~= ARGV[5] then return {} end
local dying = tonumber(ARGV[6])
local there = redis.call('LLEN', inflight)
redis.call('DEL', KEYS[5])  -- a script whose first write frees memory may go on when memory is full
recount('in_flight', there)
if dying > 0 then weigh_dead(dead) end
for i = 0, dying - 1 do
  if redis.call('LREM', inflight, 1, ARGV[7 + 2 * i]) > 0 then
    bury(dead, ARGV[8 + 2 * i])
    count('in_flight', -1)
  end
end
if dying > 0 then bound_dead(dead, tonumber(ARGV[3]), tonumber(ARGV[4])) end
local kept = #ARGV - 6 - 2 * dying
local settled = redis.call('LLEN', inflight) - kept
redis.call('DEL', inflight)
count('stored', settled)
count('in_flight', -settled)
if kept > 0 then
  redis.call('LPUSH', inflight, unpack(ARGV, #ARGV - kept + 1))
  redis.call('SET', KEYS[5], '1', 'PX', ARGV[1])
  redis.call('SADD', KEYS[6], ARGV[2])
end
return report()
