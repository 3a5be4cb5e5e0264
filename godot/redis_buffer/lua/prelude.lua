-- What every script begins with. KEYS[1] the queue, KEYS[2] the counts, KEYS[3] the run of drops; a script's own
-- keys come after them.
--
-- `expected` is the length that our own last script left behind: what is more was pushed by somebody else and
-- counts as received, what is less was taken away and counts as dropped. So the equation of `godot.buffer` holds
-- whoever touches the list.
--
-- `bytes` is the running total of the queue. Our own scripts keep it exact. What others pushed at the head is weighed
-- once, when it is noticed. All is weighed only after others took something away, and for counts that have no total.
local queue, counts, drops = KEYS[1], KEYS[2], KEYS[3]

local function count(name, by)
  if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
end

local function counted(name)
  return tonumber(redis.call('HGET', counts, name) or 0)
end

-- The bytes of the first entries of a list. Few at a time, and only one where they are large: Lua holds them all.
local function weigh(list, length)
  local bytes, at, some = 0, 0, 1
  while at < length do
    local piece = 0
    for _, entry in ipairs(redis.call('LRANGE', list, at, math.min(at + some, length) - 1)) do
      piece = piece + #entry
    end
    bytes, at = bytes + piece, at + some
    some = piece < 65536 and math.min(2 * some, 128) or 1
  end
  return bytes
end

-- Counts without a total are new, or were lost (evicted, deleted), or are of an older Godot, whose numbers of pushes
-- and takes stood among them. When counting began tells a daemon that they were lost.
local function begin(length)
  local now = redis.call('TIME')
  for _, field in ipairs(redis.call('HKEYS', counts)) do
    if string.match(field, '^flight:') or string.match(field, '^pushed:') then redis.call('HDEL', counts, field) end
  end
  redis.call('HSET', counts, 'bytes', weigh(queue, length), 'began', now[1] .. string.format('%06d', now[2]))
end

local function notice_strangers()
  local length = redis.call('LLEN', queue)
  local more = length - counted('expected')
  local is_new = redis.call('HEXISTS', counts, 'bytes') == 0
  if is_new then
    begin(length)
  elseif more > 0 then
    count('bytes', weigh(queue, more))
  elseif more < 0 then
    redis.call('HSET', counts, 'bytes', weigh(queue, length))
  end
  if is_new or more ~= 0 then
    count('received', math.max(0, more))
    count('dropped', math.max(0, -more))
    count('vanished', math.max(0, -more))
    redis.call('HSET', counts, 'expected', length)
  end
end

-- When the counts were lost, what they had counted and still is there counts as received again.
local function recount(name, there)
  local missing = there - counted(name)
  if missing > 0 then
    count('received', missing)
    count(name, missing)
  end
end

-- Who wrote an entry and when, or nothing. Our own serialisation has its fields in a fixed order, so that neither
-- an entry's message nor its data is looked at; what others pushed may be anything.
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

-- Add to the run of drops. COMPONENTS_MAX in `godot.buffer` is the 100.
local function tally(dropped, for_bytes, names, by_name, others, first, last)
  redis.call('HINCRBY', drops, 'dropped', dropped)
  redis.call('HINCRBY', drops, 'for_bytes', for_bytes)
  if first then redis.call('HSETNX', drops, 'first', first) end
  if last then redis.call('HSET', drops, 'last', last) end
  for _, name in ipairs(names) do
    local field = 'of:' .. name
    if redis.call('HEXISTS', drops, field) == 1 then
      redis.call('HINCRBY', drops, field, by_name[name])
    elseif tonumber(redis.call('HGET', drops, 'names') or 0) < 100 then
      redis.call('HINCRBY', drops, 'names', 1)
      redis.call('HSET', drops, field, by_name[name])
    else
      others = others + by_name[name]
    end
  end
  if others > 0 then redis.call('HINCRBY', drops, 'others', others) end
end

-- Drop the oldest beyond the bounds. One at a time: entries may be large.
local function cut(max_size, max_bytes)
  local length, bytes = redis.call('LLEN', queue), counted('bytes')
  local dropped, for_bytes, freed = 0, 0, 0
  local names, by_name, others, first, last = {}, {}, 0, nil, nil
  while length > max_size or (bytes > max_bytes and length > 0) do
    local oldest = redis.call('RPOP', queue)
    local component, created_at = origin(oldest)
    if not component then
      others = others + 1
    elseif by_name[component] then
      by_name[component] = by_name[component] + 1
    else
      names[#names + 1] = component
      by_name[component] = 1
    end
    first = first or created_at
    last = created_at or last
    if length <= max_size then for_bytes = for_bytes + 1 end
    length, bytes, freed, dropped = length - 1, bytes - #oldest, freed + #oldest, dropped + 1
  end
  if dropped == 0 then return end
  count('bytes', -freed)
  count('dropped', dropped)
  count('dropped_for_bytes', for_bytes)
  tally(dropped, for_bytes, names, by_name, others, first, last)
end

-- The bytes of the dead entries are counted likewise; nobody else touches them.
local function weigh_dead(dead)
  if redis.call('HEXISTS', counts, 'dead_bytes') == 0 then
    redis.call('HSET', counts, 'dead_bytes', weigh(dead, redis.call('LLEN', dead)))
  end
end

local function bury(dead, grave)
  redis.call('LPUSH', dead, grave)
  count('dead', 1)
  count('dead_bytes', #grave)
end

-- Forget the oldest of the dead beyond the bounds.
local function bound_dead(dead, max_size, max_bytes)
  local length, bytes = redis.call('LLEN', dead), counted('dead_bytes')
  while length > max_size or (bytes > max_bytes and length > 0) do
    local grave = redis.call('RPOP', dead)
    length, bytes = length - 1, bytes - #grave
    count('dead_bytes', -#grave)
    count('dead_forgotten', 1)
  end
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
