-- KEYS: in flight, lease, daemons, flight. ARGV: daemon, '1' when it is the caller itself.
local inflight, lease, daemons, flight = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local daemon, is_own = ARGV[6], ARGV[7] == '1'
if not is_own and redis.call('EXISTS', lease) == 1 then return report() end
local newest_first = redis.call('LRANGE', inflight, 0, -1)
redis.call('SREM', daemons, daemon)
redis.call('DEL', inflight, lease, flight)
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
count('unchecked', #newest_first)
cut()
return done()
