-- What every script begins with. KEYS[1] the queue, KEYS[2] the counts, KEYS[3] the run of drops; a script's own
-- keys come after them.
--
-- `expected` is the length that our own last script left behind: what is more was pushed by somebody else and
-- counts as received, what is less was taken away and counts as dropped. So the equation of `godot.buffer` holds
-- whoever touches the list.
local queue, counts, drops = KEYS[1], KEYS[2], KEYS[3]

local function count(name, by)
  if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
end

local function notice_strangers()
  local length = redis.call('LLEN', queue)
  local more = length - tonumber(redis.call('HGET', counts, 'expected') or 0)
  if more ~= 0 then
    count('received', math.max(0, more))
    count('dropped', math.max(0, -more))
    redis.call('HSET', counts, 'expected', length)
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
local function tally(dropped, names, by_name, others, first, last)
  redis.call('HINCRBY', drops, 'dropped', dropped)
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

-- Drop the oldest beyond the bound. A few at a time: entries may be large.
local function cut(max_size)
  local excess = redis.call('LLEN', queue) - max_size
  if excess <= 0 then return end
  local names, by_name, others, first, last = {}, {}, 0, nil, nil
  local left = excess
  while left > 0 do
    local some = math.min(left, 20)
    local oldest = redis.call('LRANGE', queue, -some, -1)
    for i = some, 1, -1 do
      local component, created_at = origin(oldest[i])
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
    end
    redis.call('LTRIM', queue, 0, -some - 1)
    left = left - some
  end
  count('dropped', excess)
  tally(excess, names, by_name, others, first, last)
end

local function report()
  local length = redis.call('LLEN', queue)
  local all = redis.call('HMGET', counts, 'in_flight', 'received', 'stored', 'dropped', 'dead', 'expected')
  for i = 1, 6 do all[i] = tonumber(all[i] or 0) end
  local more = length - all[6]
  return {length, all[1], all[2] + math.max(0, more), all[3], all[4] + math.max(0, -more), all[5]}
end

local function done()
  redis.call('HSET', counts, 'expected', redis.call('LLEN', queue))
  return report()
end
