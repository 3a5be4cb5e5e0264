-- What every script begins with. KEYS[1] the queue, KEYS[2] the counts, KEYS[3] the run of drops, KEYS[4] the dead;
-- ARGV[1] how many entries may be queued, ARGV[2] of how many bytes, ARGV[3] how many may be dead, ARGV[4] of how many
-- bytes, ARGV[5] the bytes that an entry may have. A script's own keys and arguments come after them.
--
-- `expected` is the length that our own last script left. When there is more, others pushed it, and it counts as
-- received. When there is less, others took it away, and it counts as dropped. So the equation of
-- `godot.buffer.protocol` holds whoever touches the list.
--
-- `unchecked` is how many of the oldest entries may be others': all that were there when another process was noticed,
-- and what was put back in front of them since. Their sender has to check them; the rest is our own serialisation.
--
-- `bytes` is the total of the queue. Our own scripts keep it exact. What others pushed at the head is weighed once,
-- when it is noticed. The whole queue is weighed only after others took something away, and for counts that have no
-- total.
local queue, counts, drops, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_size, max_bytes, dead_max, dead_max_bytes, entry_max_bytes =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function count(name, by)
  if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
end

local function counted(name)
  return tonumber(redis.call('HGET', counts, name) or 0)
end

-- How many entries to read at once after `some` of them had `bytes` in all: Lua holds them all.
local function next_some(some, bytes)
  return bytes < 65536 and math.min(2 * some, 128) or 1
end

-- Return the component and the time of an entry, or nothing. Our own serialisation has its fields in a fixed order, so
-- neither message nor data is read; what others pushed may be anything.
local function origin(entry)
  local component = string.match(entry, '^{"id":"[^"]*","trace_id":[^,]*,"component":"([^"\\]+)"')
  local created_at = component and string.match(string.sub(entry, -43), '^"created_at":"([^"\\]+)"}$')
  if not created_at then
    if #entry > 65536 then return nil, nil end
    local is_json, value = pcall(cjson.decode, entry)
    if not is_json or type(value) ~= 'table' then return nil, nil end
    component, created_at = value['component'], value['created_at']
  end
  if type(component) ~= 'string' or #component == 0 or #component > 1020 then component = nil end
  if type(created_at) ~= 'string' or #created_at > 64 then created_at = nil end
  return component, created_at
end

local function new_run()
  return {dropped = 0, for_bytes = 0, names = {}, by_name = {}, others = 0}
end

local function note_drop(run, entry, for_bytes)
  local component, created_at = origin(entry)
  if not component then
    run.others = run.others + 1
  elseif run.by_name[component] then
    run.by_name[component] = run.by_name[component] + 1
  else
    run.names[#run.names + 1] = component
    run.by_name[component] = 1
  end
  run.first = run.first or created_at
  run.last = created_at or run.last
  run.dropped = run.dropped + 1
  if for_bytes then run.for_bytes = run.for_bytes + 1 end
end

-- Count these drops, and add them to the run of drops. The 100 is COMPONENTS_MAX in `godot.buffer.protocol`.
local function tally(run)
  if run.dropped == 0 then return end
  count('dropped', run.dropped)
  count('dropped_for_bytes', run.for_bytes)
  redis.call('HINCRBY', drops, 'dropped', run.dropped)
  redis.call('HINCRBY', drops, 'for_bytes', run.for_bytes)
  if run.first then redis.call('HSETNX', drops, 'first', run.first) end
  if run.last then redis.call('HSET', drops, 'last', run.last) end
  for _, name in ipairs(run.names) do
    local field = 'of:' .. name
    if redis.call('HEXISTS', drops, field) == 1 then
      redis.call('HINCRBY', drops, field, run.by_name[name])
    elseif tonumber(redis.call('HGET', drops, 'names') or 0) < 100 then
      redis.call('HINCRBY', drops, 'names', 1)
      redis.call('HSET', drops, field, run.by_name[name])
    else
      run.others = run.others + run.by_name[name]
    end
  end
  if run.others > 0 then redis.call('HINCRBY', drops, 'others', run.others) end
end

-- Count the bytes of the dead entries, once; nobody else touches them.
local function weigh_dead()
  if redis.call('HEXISTS', counts, 'dead_bytes') == 1 then return end
  local length, bytes, at, some = redis.call('LLEN', dead), 0, 0, 1
  while at < length do
    local piece = 0
    for _, record in ipairs(redis.call('LRANGE', dead, at, math.min(at + some, length) - 1)) do piece = piece + #record end
    bytes, at, some = bytes + piece, at + some, next_some(some, piece)
  end
  redis.call('HSET', counts, 'dead_bytes', bytes)
end

-- Keep it among the dead, and forget the oldest of them beyond the bounds. One that is too large by itself is not kept,
-- and no other has to go for it.
local function bury(record)
  count('dead', 1)
  if #record > dead_max_bytes then
    count('dead_forgotten', 1)
    return
  end
  weigh_dead()
  redis.call('LPUSH', dead, record)
  local length, bytes = redis.call('LLEN', dead), counted('dead_bytes') + #record
  local forgotten, freed = 0, 0
  while length > dead_max or bytes - freed > dead_max_bytes do
    freed = freed + #redis.call('RPOP', dead)
    length, forgotten = length - 1, forgotten + 1
  end
  count('dead_bytes', #record - freed)
  count('dead_forgotten', forgotten)
end

-- Put an entry aside that is larger than an entry may be: `DeadEntry.beginning` in `godot.buffer.protocol`. No daemon
-- gets it, or it would have to hold it.
local function bury_beginning(entry)
  local first = string.sub(entry, 1, 65536)
  local reason = 'an entry may have ' .. entry_max_bytes .. ' bytes, this one has ' .. #entry
  bury('{"reason":"' .. reason .. '","entry":' .. cjson.encode(first) .. ',"bytes":' .. #entry .. '}')
end

-- Return whether an entry has no place in the queue. It goes alone: to the dead when it is larger than an entry may be,
-- as a drop when it is larger than the whole queue may be.
local function turn_away(entry, run)
  if #entry > entry_max_bytes then
    bury_beginning(entry)
  elseif #entry > max_bytes then
    note_drop(run, entry, true)
  else
    return false
  end
  return true
end

-- Weigh the first entries of the queue, oldest first, and turn away those that have no place in it; return their bytes.
-- Read few at a time, and only one where they are large.
local function weigh(length)
  local bytes, some, gone, run = 0, 1, 0, new_run()
  while length > 0 do
    local from, piece = math.max(0, length - some), 0
    local newest_first = redis.call('LRANGE', queue, from, length - 1)
    for i = #newest_first, 1, -1 do
      local entry = newest_first[i]
      piece = piece + #entry
      if turn_away(entry, run) then
        redis.call('LSET', queue, from + i - 1, 'godot: turned away')
        gone = gone + 1
      else
        bytes = bytes + #entry
      end
    end
    length, some = from, next_some(some, piece)
  end
  if gone > 0 then redis.call('LREM', queue, gone, 'godot: turned away') end
  tally(run)
  return bytes
end

-- Counts without a total are new, or were lost (evicted, deleted), or are of an older Godot, which kept its pushes and
-- takes among them. From the time when counting began a daemon sees that they were lost.
local function begin()
  local now = redis.call('TIME')
  for _, field in ipairs(redis.call('HKEYS', counts)) do
    if string.match(field, '^flight:') or string.match(field, '^pushed:') then redis.call('HDEL', counts, field) end
  end
  redis.call('HSET', counts, 'bytes', 0, 'began', now[1] .. string.format('%06d', now[2]))
end

local function notice_strangers()
  local length = redis.call('LLEN', queue)
  local known = redis.call('HMGET', counts, 'expected', 'bytes', 'unchecked')
  local more = length - (tonumber(known[1]) or 0)
  local is_new = not known[2]
  if more == 0 and not is_new then
    if not known[3] then redis.call('HSET', counts, 'unchecked', length) end  -- the counts of an older Godot
    return
  end
  if is_new then begin() end
  count('received', math.max(0, more))
  count('dropped', math.max(0, -more))
  count('vanished', math.max(0, -more))
  if more > 0 and not is_new then
    count('bytes', weigh(more))
  else
    redis.call('HSET', counts, 'bytes', weigh(length))
  end
  length = redis.call('LLEN', queue)
  redis.call('HSET', counts, 'expected', length, 'unchecked', length)
end

-- Note that so many of the oldest entries are gone.
local function note_gone(number)
  count('unchecked', -math.min(number, counted('unchecked')))
end

-- When the counts were lost, what is still there counts as received again.
local function recount(name, there)
  local missing = there - counted(name)
  if missing > 0 then
    count('received', missing)
    count(name, missing)
  end
end

-- Drop the oldest beyond the bounds. One at a time: entries may be large.
local function cut()
  local length, bytes = redis.call('LLEN', queue), counted('bytes')
  local run, freed, before = new_run(), 0, length
  while length > max_size or (bytes > max_bytes and length > 0) do
    local oldest = redis.call('RPOP', queue)
    note_drop(run, oldest, length <= max_size)
    length, bytes, freed = length - 1, bytes - #oldest, freed + #oldest
  end
  count('bytes', -freed)
  note_gone(before - length)
  tally(run)
end

-- In the order of `_counts` in buffer.py.
local function report()
  local more = redis.call('LLEN', queue) - counted('expected')
  return {
    redis.call('LLEN', queue), counted('in_flight'), counted('received') + math.max(0, more), counted('stored'),
    counted('dropped') + math.max(0, -more), counted('dead'), math.max(0, counted('bytes')),
    counted('dropped_for_bytes'), counted('vanished') + math.max(0, -more), counted('dead_forgotten'),
    counted('began')
  }
end

local function done()
  local length = redis.call('LLEN', queue)
  redis.call('HSET', counts, 'expected', length)
  -- Others may have pushed and taken between two of our scripts: an empty queue puts the total right.
  if length == 0 and counted('bytes') ~= 0 then redis.call('HSET', counts, 'bytes', 0) end
  return report()
end
