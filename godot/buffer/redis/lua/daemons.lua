-- KEYS: daemons.
return redis.call('SMEMBERS', KEYS[5])
