-- KEYS: in flight, lease, daemons, flight. ARGV: bound, bound in bytes, daemon, '1' when it is the caller itself.
local inflight, lease = KEYS[4], KEYS[5]
if ARGV[4] ~= '1' and redis.call('EXISTS', lease) == 1 then return report() end
local newest_first = redis.call('LRANGE', inflight, 0, -1)
local max_size, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('SREM', KEYS[6], ARGV[3])
redis.call('DEL', inflight, lease, KEYS[7])
notice_strangers()
if #newest_first == 0 and redis.call('LLEN', queue) <= max_size and counted('bytes') <= max_bytes then return report() end
recount('in_flight', #newest_first)
for i = 1, #newest_first, 1000 do
  redis.call('RPUSH', queue, unpack(newest_first, i, math.min(i + 999, #newest_first)))
end
local bytes = 0
for _, entry in ipairs(newest_first) do bytes = bytes + #entry end
count('bytes', bytes)
count('in_flight', -#newest_first)
cut(max_size, max_bytes)
return done()
