-- The ground of the scripts that move orders which are there: pay, cancel, expire, settle, track, and raise.
--
-- `fetch` and `bought_of` read; verbs change the tables they return; `commit` writes them in a few variadic calls.

local insert = table.insert
local close_finished, open_finished = finished_form()

local orders, found_in = {}, {}    -- id -> record, id -> 'live' | 'done'
local changed, finished = {}, {}   -- id -> true: write to live; write to done and drop from live
local touched = {}                 -- sku -> true: its free units have changed
local counts, counted = {}, {}     -- sku -> buyer -> units, and those to write
local records = {}                 -- this call's facts, in order

-- The order ids of a joined argument, 16 bytes each.
local function split_ids(joined)
  local ids = {}
  for at = 1, #joined, 16 do ids[#ids + 1] = sub(joined, at, at + 15) end
  return ids
end

local function fetch_from(key, ids, where, open)
  if #ids == 0 then return ids end
  local missing = {}
  local values, found = call('HMGET', key, unpack(ids)), 0
  for i = 1, #values do
    local value = values[i]
    if value then
      orders[ids[i]], found_in[ids[i]] = open(value), where
      found = found + 1
    end
  end
  if found == 0 then return ids end
  if found == #ids then return {} end
  for i, value in ipairs(values) do
    if not value then missing[#missing + 1] = ids[i] end
  end
  return missing
end

-- Reads the records of these orders into `orders`: one call for the live, two more for those that are not.
local function fetch(ids)
  ids = fetch_from(live, ids, 'live', unpack_value)
  ids = fetch_from(done, ids, 'done', open_finished)
  fetch_from(done_before, ids, 'done', open_finished)
end

local function bought_of(sku, buyer)
  counts[sku] = counts[sku] or {}
  local units = counts[sku][buyer]
  if not units then
    units = tonumber(call('HGET', root .. ':bought:' .. sku, buyer) or 0)
    counts[sku][buyer] = units
  end
  return units
end

-- Takes `units` from the free ones of a SKU, or adds them when negative.
local function take_free(sku, units)
  local r = rule(sku)
  if units < 0 and r.free <= 0 and rest_ms > 0 then r.rests_ms = now + rest_ms end
  r.free = r.free - units
  touched[sku] = true
end

-- Takes `units` of a SKU for a buyer, or gives them back when negative.
local function take(sku, buyer, units)
  take_free(sku, units)
  local held = bought_of(sku, buyer) + units
  counts[sku][buyer] = held
  counted[sku] = counted[sku] or {}
  counted[sku][buyer] = held
end

-- Adds a fact about an order to the journal: digest, id, msgpack array.
local function record_fact(id, fact)
  local body = id .. pack(fact)
  insert(records, sub(redis.sha1hex(body), 1, 16) .. body)
end

-- Ends an order: its record moves from the live to the finished.
local function finish(id, state)
  local order = orders[id]
  order[STATE], order[STARTED] = state, 0
  changed[id], finished[id] = nil, true
end

-- Names the orders that come back from the finished, or from PostgreSQL: they are kept longer than their first name.
local function name_again()
  local of = {}
  for _, ids in ipairs({ changed, finished }) do
    for id in pairs(ids) do
      if found_in[id] ~= 'live' then
        local sku = orders[id][SKU]
        of[sku] = (of[sku] or '') .. sub(id, 1, 8)
      end
    end
  end
  for sku, names in pairs(of) do write_names(sku, names) end
end

local function write_counts()
  for sku, of in pairs(counted) do
    local set, drop = {}, {}
    for buyer, units in pairs(of) do
      if units > 0 then insert(set, buyer); insert(set, whole(units)) else insert(drop, buyer) end
    end
    if #set > 0 then call('HSET', root .. ':bought:' .. sku, unpack(set)) end
    if #drop > 0 then call('HDEL', root .. ':bought:' .. sku, unpack(drop)) end
  end
end

local function write_free()
  for sku in pairs(touched) do
    local r = rules[sku]
    if r.rests_ms > now then
      call('HSET', root .. ':sku:' .. sku, 'free', whole(r.free), 'rests_ms', whole(r.rests_ms))
    else
      call('HSET', root .. ':sku:' .. sku, 'free', whole(r.free))
    end
  end
end

-- Writes everything decided, in a number of calls that does not grow with the batch (only with its SKUs).
local function commit()
  local set, dues, over, gone = {}, {}, {}, {}
  for id in pairs(changed) do
    local order = orders[id]
    insert(set, id)
    insert(set, pack(order))
    if order[STATE] == 'reserved' then
      insert(dues, whole(order[PAY_BY]))
      insert(dues, id)
    end
  end
  for id in pairs(finished) do
    insert(over, id)
    insert(over, close_finished(orders[id]))
    insert(gone, id)
  end
  write_free()
  write_counts()
  name_again()
  if #set > 0 then call('HSET', live, unpack(set)) end
  if #dues > 0 then call('ZADD', due, unpack(dues)) end
  if #gone > 0 then
    call('HSET', done, unpack(over))
    call('HDEL', live, unpack(gone))
  end
  write_facts(records)
end
