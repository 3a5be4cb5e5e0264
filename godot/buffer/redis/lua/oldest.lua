-- Return the oldest entry of the queue; nothing when it is larger than an entry may be and was not noticed yet.
local entry = redis.call('LINDEX', queue, -1)
return entry and #entry <= entry_max_bytes and entry
