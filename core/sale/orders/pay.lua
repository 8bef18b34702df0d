-- Takes a batch of what gateways report about payments.
--
-- ARGV[2]  two msgpack values: {{gateway, event, status, amount, currency, paid_at_ms, known}, …} · the order ids, 16 bytes
--          each, joined. status: started, failed or paid. known: false, or the record PostgreSQL has of an order this
--          store forgot
-- returns  msgpack {{outcome, state}, …}: paid, late, refund_due (all three charged), repeated, noted, or a refusal:
--          unknown_order, amount_mismatch, currency_mismatch, event_reused
--
-- Every charge ends in exactly one of: the order paid, the order paid late (units reserved again), a refund due.
-- Cost: 3 reads and up to 5 writes a batch; a late payment adds two reads.

local reports, joined = unpack_value(ARGV[2])
local ids = split_ids(joined)
local answers = {}

-- An event by 9 bytes of its digest, its order by 9 bytes of its id: 72 bits tell all events of two days apart, and an
-- entry takes 40 bytes whatever names a gateway gives; with name and id in full it took 70 to 200.
local function event_name(gateway, event)
  local hex = redis.sha1hex(gateway .. '\0' .. event)
  return struct.pack('>I4I4B', tonumber(string.sub(hex, 1, 8), 16), tonumber(string.sub(hex, 9, 16), 16),
    tonumber(string.sub(hex, 17, 18), 16))
end

local function order_name(id) return string.sub(id, 1, 9) end

fetch(ids)
local events, events_before = root .. ':events:' .. gen, root .. ':events:' .. (gen - 1)
local names = {}
for i, say in ipairs(reports) do names[i] = event_name(say[1], say[2]) end
local seen, seen_now = {}, {}
if #names > 0 then
  local new, old = call('HMGET', events, unpack(names)), call('HMGET', events_before, unpack(names))
  for i, name in ipairs(names) do seen[name] = new[i] or old[i] or nil end
end

local function paid_fact(id, say, applied, refusal)
  record_fact(id, { 'paid', say[1], say[2], say[4], say[5], say[6], now, applied, refusal })
end

-- A charge for an order that had ended: reserve again if the rules still allow it, else the money goes back.
local function pay_late(id, order, say)
  local r = rule(order[SKU])
  local refusal = ''
  if not r or r.free < order[QUANTITY] then
    refusal = 'sold_out'
  elseif bought_of(order[SKU], order[BUYER]) + order[QUANTITY] > r.limit then
    refusal = 'limit_reached'
  end
  if refusal ~= '' then
    paid_fact(id, say, 'refund_due', refusal)
    finish(id, 'refund_due')
    return { 'refund_due', 'refund_due' }
  end
  take(order[SKU], order[BUYER], order[QUANTITY])
  order[STATE] = 'paid'
  finished[id], changed[id] = nil, true
  paid_fact(id, say, 'late', '')
  return { 'late', 'paid' }
end

local function charged(id, order, say, name)
  seen[name], seen_now[name] = order_name(id), order_name(id)
  if order[STATE] == 'reserved' then
    order[STATE], order[STARTED] = 'paid', 0
    changed[id] = true
    paid_fact(id, say, 'first', '')
    return { 'paid', 'paid' }
  end
  if order[STATE] == 'expired' or order[STATE] == 'cancelled' then return pay_late(id, order, say) end
  paid_fact(id, say, 'refund_due', 'charged_twice')
  return { 'refund_due', order[STATE] }
end

local function decide(id, say, name)
  local order = orders[id]
  if not order and say[7] then
    order = say[7]
    orders[id] = order
  end
  if not order then return { 'unknown_order' } end
  if seen[name] then
    if seen[name] ~= order_name(id) then return { 'event_reused' } end
    return { 'repeated', order[STATE] }
  end
  if say[5] ~= order[CURRENCY] then return { 'currency_mismatch' } end
  if say[4] ~= order[AMOUNT] then return { 'amount_mismatch' } end
  if say[3] == 'paid' then return charged(id, order, say, name) end
  if order[STATE] == 'reserved' then
    order[STARTED] = say[3] == 'started' and now or 0
    changed[id] = true
  end
  return { 'noted', order[STATE] }
end

for i, say in ipairs(reports) do answers[i] = decide(ids[i], say, names[i]) end

commit()
local fresh = {}
for name, order in pairs(seen_now) do
  insert(fresh, name)
  insert(fresh, order)
end
if #fresh > 0 then call('HSET', events, unpack(fresh)) end
return pack(answers)
