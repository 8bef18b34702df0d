-- The ground every order script stands on; the loader puts it in front of each verb.
--
-- KEYS[1]  the shard's root, e.g. fp:{0}. Every key is root .. ':name': one hash tag, so one slot on a cluster.
--
--   :meta        hash    epoch (0: selling is closed), gen, run_id, trimmed, rest_ms
--   :sku:<sku>   hash    free, price, currency, limit, hold_ms, opens_ms, closes_ms, rests_ms
--   :ids:<gen>:<sku>  string  of all orders accepted in this generation, the first 8 bytes of their ids, joined
--   :bought:<sku> hash   buyer -> units held or bought
--   :live        hash    order id (16 bytes) -> record of an order not finished
--   :done:<gen>  hash    order id -> idempotency record of a finished one (see close_finished), kept 24 to 48 h (two
--                        generations)
--   :due         zset    joined order ids by the instant their reservations end: the orders of a batch are one member, and
--                        who is paid or cancelled stays in it (expire.lua passes over them)
--   :events:<gen> hash   gateway event -> order, each by 9 bytes (see pay.lua), kept as long
--   :facts       stream  the journal
--
-- ARGV[1]  the epoch the caller believes in; a script called under another one, or while selling is closed, changes
--          nothing and answers the error FENCED. '' asks for no epoch (reads, and what stays true in every epoch).
--
-- A unit that comes back to a SKU that had none rests for meta's rest_ms before it is sold. So the word *sold out* is good
-- for that long, with every worker: none can accept an order of the SKU meanwhile, and `ids` names all that have one.
--
-- A script never writes before it has read and decided everything: Lua keeps what was written before an error.
-- `fetch`, `rule`, `bought_of` read; verbs change the tables they return; `commit` writes them in a few variadic calls.

local root = KEYS[1]
local call, pack, unpack_value = redis.call, cmsgpack.pack, cmsgpack.unpack
local insert = table.insert

-- a record's places
local STATE, PRINT, SKU, BUYER, QUANTITY, AMOUNT, CURRENCY, PAY_BY, STARTED = 1, 2, 3, 4, 5, 6, 7, 8, 9

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local meta = call('HMGET', root .. ':meta', 'epoch', 'gen', 'rest_ms')
local epoch, gen, rest_ms = meta[1], tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
if ARGV[1] ~= '' and (ARGV[1] ~= epoch or epoch == '0') then
  return redis.error_reply('FENCED selling is closed or the epoch is over')
end
local live, due, facts = root .. ':live', root .. ':due', root .. ':facts'
local done, done_before = root .. ':done:' .. gen, root .. ':done:' .. (gen - 1)

local orders, found_in = {}, {}    -- id -> record, id -> 'live' | 'done'
local changed, finished = {}, {}   -- id -> true: write to live; write to done and drop from live
local rules, touched = {}, {}      -- sku -> rule, sku -> true
local counts, counted = {}, {}     -- sku -> buyer -> units, and those to write
local records = {}                 -- this call's facts, in order

-- The order ids of a joined argument, 16 bytes each.
local function split_ids(joined)
  local ids = {}
  for at = 1, #joined, 16 do ids[#ids + 1] = string.sub(joined, at, at + 15) end
  return ids
end

-- The states in the order of order.py: finished records number them from 1.
local STATES = { 'reserved', 'paid', 'delivered', 'expired', 'cancelled', 'held', 'in_review', 'frozen', 'refund_due',
  'refunded' }
local NUMBERS = {}
for number, state in ipairs(STATES) do NUMBERS[state] = number end

-- Finished orders outnumber all others, so their record is small: what answers a retry and a second charge, 17 bytes and
-- the money. What a late charge, a cancellation or a look needs besides is kept unless the order is delivered: then
-- nobody asks Valkey for it any more (see track.lua). finished.py reads and writes the same in Python.
local HEAD = '>BI4I4I8'  -- state, fingerprint in two halves, pay_by

local function close_finished(order)
  local print = order[PRINT]
  local head = struct.pack(HEAD, NUMBERS[order[STATE]], tonumber(string.sub(print, 1, 8), 16),
    tonumber(string.sub(print, 9), 16), order[PAY_BY])
  if order[STATE] == 'delivered' then return head .. pack(order[AMOUNT], order[CURRENCY]) end
  return head .. pack(order[AMOUNT], order[CURRENCY], order[SKU], order[BUYER], order[QUANTITY])
end

local function open_finished(value)
  local number, high, low, pay_by, at = struct.unpack(HEAD, value)
  local amount, currency, sku, buyer, quantity = unpack_value(string.sub(value, at))
  return { STATES[number], string.format('%08x%08x', high, low), sku, buyer, quantity, amount, currency, pay_by, 0 }
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

-- The sale rule of a SKU with its free units, or false.
local function rule(sku)
  local known = rules[sku]
  if known ~= nil then return known end
  local v = call('HMGET', root .. ':sku:' .. sku, 'free', 'price', 'currency', 'limit', 'hold_ms', 'opens_ms', 'closes_ms',
    'rests_ms')
  known = v[2] and { free = tonumber(v[1] or '0'), price = tonumber(v[2]), currency = v[3], limit = tonumber(v[4]),
    hold_ms = tonumber(v[5]), opens_ms = tonumber(v[6] or '0'), closes_ms = tonumber(v[7] or '0'), rests_ms = tonumber(v[8] or '0') } or false
  rules[sku] = known
  return known
end

-- Reads what these buyers hold of a SKU, in one call; who holds nothing gets no entry.
local function fetch_counts(sku, buyers)
  local values = call('HMGET', root .. ':bought:' .. sku, unpack(buyers))
  local of = {}
  for i = 1, #values do
    local value = values[i]
    if value then of[buyers[i]] = tonumber(value) end
  end
  counts[sku] = of
end

local function bought_of(sku, buyer)
  counts[sku] = counts[sku] or {}
  local units = counts[sku][buyer]
  if not units then
    units = tonumber(call('HGET', root .. ':bought:' .. sku, buyer) or '0')
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
  insert(records, string.sub(redis.sha1hex(body), 1, 16) .. body)
end

-- Writes the facts as one entry. A stream has fields and values; both are records here, for a field's name is an argument
-- to make, to log and to store. Where their number is odd, the last value is empty.
local function write_facts()
  if #records % 2 == 1 then insert(records, '') end
  if #records > 0 then call('XADD', facts, '*', unpack(records)) end
end

-- Ends an order: its record moves from the live to the finished.
local function finish(id, state)
  local order = orders[id]
  order[STATE], order[STARTED] = state, 0
  changed[id], finished[id] = nil, true
end

local IDS_KEPT_S = 3 * 86400  -- longer than two generations

-- What stands for an order among those of its SKU. Two that share one are both taken for known, so both are asked for here.
local function name_of(id) return string.sub(id, 1, 8) end

-- Names orders of a SKU in this generation; a name may stand there twice.
local function write_names(sku, names)
  local key, joined = root .. ':ids:' .. gen .. ':' .. sku, table.concat(names)
  if call('APPEND', key, joined) == #joined then call('EXPIRE', key, IDS_KEPT_S) end
end

-- Names the orders that come back from the finished, or from PostgreSQL: they are kept longer than their first name.
local function name_again()
  local of = {}
  for _, ids in ipairs({ changed, finished }) do
    for id in pairs(ids) do
      if found_in[id] ~= 'live' then
        local sku = orders[id][SKU]
        of[sku] = of[sku] or {}
        insert(of[sku], name_of(id))
      end
    end
  end
  for sku, names in pairs(of) do write_names(sku, names) end
end

local function write_counts()
  for sku, of in pairs(counted) do
    local set, drop = {}, {}
    for buyer, units in pairs(of) do
      if units > 0 then insert(set, buyer); insert(set, units) else insert(drop, buyer) end
    end
    if #set > 0 then call('HSET', root .. ':bought:' .. sku, unpack(set)) end
    if #drop > 0 then call('HDEL', root .. ':bought:' .. sku, unpack(drop)) end
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
      insert(dues, order[PAY_BY])
      insert(dues, id)
    end
  end
  for id in pairs(finished) do
    insert(over, id)
    insert(over, close_finished(orders[id]))
    insert(gone, id)
  end
  for sku in pairs(touched) do
    local r = rules[sku]
    if r.rests_ms > now then
      call('HSET', root .. ':sku:' .. sku, 'free', r.free, 'rests_ms', r.rests_ms)
    else
      call('HSET', root .. ':sku:' .. sku, 'free', r.free)
    end
  end
  write_counts()
  name_again()
  if #set > 0 then call('HSET', live, unpack(set)) end
  if #dues > 0 then call('ZADD', due, unpack(dues)) end
  if #gone > 0 then
    call('HSET', done, unpack(over))
    call('HDEL', live, unpack(gone))
  end
  write_facts()
end
