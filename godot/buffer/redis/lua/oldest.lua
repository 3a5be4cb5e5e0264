-- Return the oldest entry of the queue; nothing when it is larger than an entry may be, which has not been noticed yet.
local entry = redis.call('LINDEX', queue, -1)
return entry and #entry <= entry_max_bytes and entry
