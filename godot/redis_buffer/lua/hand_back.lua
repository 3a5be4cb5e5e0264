-- KEYS: in flight, lease, daemons. ARGV: bound, daemon, '1' when it is the caller itself.
local inflight, lease = KEYS[4], KEYS[5]
if ARGV[3] ~= '1' and redis.call('EXISTS', lease) == 1 then return report() end
local newest_first = redis.call('LRANGE', inflight, 0, -1)
redis.call('SREM', KEYS[6], ARGV[2])
redis.call('DEL', inflight, lease)
if #newest_first > 0 then redis.call('HINCRBY', counts, 'flight:' .. ARGV[2], 1) end
if #newest_first == 0 and redis.call('LLEN', queue) <= tonumber(ARGV[1]) then return report() end
notice_strangers()
for i = 1, #newest_first, 1000 do
  redis.call('RPUSH', queue, unpack(newest_first, i, math.min(i + 999, #newest_first)))
end
count('in_flight', -#newest_first)
cut(tonumber(ARGV[1]))
return done()
