-- ARGV: bound, field of this daemon's last push, digest of this push, entries oldest first.
if redis.call('HGET', counts, ARGV[2]) == ARGV[3] then
  redis.call('HSET', counts, ARGV[2], ARGV[3])  -- a write, so that WAIT behind it waits for the push before
  return report()
end
notice_strangers()
redis.call('LPUSH', queue, unpack(ARGV, 4))
count('received', #ARGV - 3)
cut(tonumber(ARGV[1]))
redis.call('HSET', counts, ARGV[2], ARGV[3])
return done()
