-- KEYS: digest of this daemon's last push. ARGV: bound, bound in bytes, how long a digest is kept in ms, digest of this
-- push, entries oldest first.
local pushed = KEYS[4]
if redis.call('GET', pushed) == ARGV[4] then
  redis.call('SET', pushed, ARGV[4], 'PX', ARGV[3])  -- a write, so that WAIT behind it waits for the push before
  return report()
end
notice_strangers()
redis.call('LPUSH', queue, unpack(ARGV, 5))
count('received', #ARGV - 4)
local bytes = 0
for i = 5, #ARGV do bytes = bytes + #ARGV[i] end
count('bytes', bytes)
cut(tonumber(ARGV[1]), tonumber(ARGV[2]))
redis.call('SET', pushed, ARGV[4], 'PX', ARGV[3])
return done()
