-- KEYS: digest of this daemon's last push. ARGV: how long a digest is kept in ms, digest of this push, entries oldest
-- first.
local pushed, digest = KEYS[5], ARGV[7]
if redis.call('GET', pushed) == digest then
  redis.call('SET', pushed, digest, 'PX', ARGV[6])  -- a write, so that a WAIT after it waits for the push before
  return report()
end
notice_strangers()
local entries, bytes, run = {}, 0, new_run()
for i = 8, #ARGV do
  if not turn_away(ARGV[i], run) then
    entries[#entries + 1] = ARGV[i]
    bytes = bytes + #ARGV[i]
  end
end
if #entries > 0 then redis.call('LPUSH', queue, unpack(entries)) end
count('received', #ARGV - 7)
count('bytes', bytes)
tally(run)
cut()
redis.call('SET', pushed, digest, 'PX', ARGV[6])
return done()
