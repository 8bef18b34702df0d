-- Places a batch of orders: decides all of them in the order given, then writes what was accepted.
--
-- ARGV[2]  three msgpack values: kinds {{sku, fingerprint, quantity}, …} · the kind of each order (from 1) · its buyer
-- ARGV[3]  the order ids, 16 bytes each, joined (cmsgpack reads no binary type; ids must not be text)
-- ARGV[4]  of each order, the CRC-32 of its id and buyer, 4 bytes big-endian, joined: a part of its fact (facts.py)
-- returns  msgpack {answers, which, lasting}
--          answers: {{outcome, state, amount, currency, pay_by_ms}, …}, each once (a refusal is {outcome})
--          which: the answer of each order (from 1)
--          lasting: {{sku, outcome, good_ms, gen, ids, ids_before}, …}: no new order of this SKU is accepted by anybody for
--          good_ms from now, and ids (bytes in `ids:<gen>:<sku>`, and in the generation before) names all that there are
--
-- In a flash sale nearly all orders of a batch are of one kind. What they share (rule, terms, the answer, all bytes of
-- record and fact but the id and the buyer) is made once a kind; an order costs two entries in tables and a few
-- strings. With a table and a pack for each answer, record and fact an order cost 12 µs of Lua instead of 5.
--
-- Cost: 2 + 2·SKUs reads and 2 + 3·SKUs + kinds writes whatever the number of orders; 2 reads a SKU that is sold out.

local kinds, which, buyers = unpack_value(ARGV[2])
local ids = split_ids(ARGV[3])
fetch(ids)

-- --- what the orders of a kind share --------------------------------------------------------------------------------

local answers, refusals = {}, {}

local function tell(answer)
  insert(answers, answer)
  return #answers
end

local function refuse(outcome)
  refusals[outcome] = refusals[outcome] or tell({ outcome })
  return refusals[outcome]
end

local function closed_because(r)
  if not r then return 'unknown_product' end
  if now < r.opens_ms then return 'not_open' end
  if r.closes_ms > 0 and now >= r.closes_ms then return 'closed' end
end

local terms = {}
for k, kind in ipairs(kinds) do
  local sku, print, quantity = kind[1], kind[2], kind[3]
  local r = rule(sku)
  local t = { sku = sku, print = print, quantity = quantity, rule = r, closed = closed_because(r) }
  if not t.closed then
    local amount, pay_by = r.price * quantity, now + r.hold_ms
    r.names, r.bought, r.buyers = r.names or {}, r.bought or {}, r.buyers or {}
    t.pay_by = pay_by
    t.record = { 'reserved', print, sku, '', quantity, amount, r.currency, pay_by, 0 }
    -- The same record and its fact, as msgpack arrays of 9 and 8 values around the buyer.
    t.record_head, t.record_tail = '\153' .. pack('reserved', print, sku), pack(quantity, amount, r.currency, pay_by, 0)
    t.fact_head, t.fact_tail = '\152' .. pack('placed', sku), pack(quantity, amount, r.currency, now, pay_by)
    t.fact_seal = 'p' .. string.sub(redis.sha1hex(t.fact_head .. t.fact_tail), 1, 16)
    t.answer = { 'accepted', 'reserved', amount, r.currency, pay_by }
  end
  terms[k] = t
end

for i = 1, #ids do
  local t = terms[which[i]]
  if not (t.closed or orders[ids[i]]) then
    local list = t.rule.buyers
    list[#list + 1] = buyers[i]
  end
end
for sku, r in pairs(rules) do
  if r and r.buyers and #r.buyers > 0 then fetch_counts(sku, r.buyers) end
end

-- --- the decision ---------------------------------------------------------------------------------------------------

local live_args, said = {}, {}
local at, checks, sub = 0, ARGV[4], string.sub

-- A text's head as msgpack has it, by the text's length; and a count as text: the call would format it as a fraction.
local heads, counts_as_text = {}, {}

local function head_of(text)
  local packed = pack(text)
  local head = sub(packed, 1, #packed - #text)
  heads[#text] = head
  return head
end

local function as_text(units)
  local text = tostring(units)
  counts_as_text[units] = text
  return text
end

local function accept(i, id, t, buyer, held)
  local r = t.rule
  r.free = r.free - t.quantity
  counts[t.sku][buyer] = held
  orders[id] = t.record
  local bought, names = r.bought, r.names
  local count = #bought
  bought[count + 1], bought[count + 2] = buyer, counts_as_text[held] or as_text(held)
  names[#names + 1] = name_of(id)
  local due_ids = t.due_ids
  if not due_ids then
    due_ids, t.accepted = {}, tell(t.answer)
    t.due_ids = due_ids
  end
  due_ids[#due_ids + 1] = id
  local head = heads[#buyer] or head_of(buyer)
  records[#records + 1] = t.fact_seal .. id .. sub(checks, 4 * i - 3, 4 * i) .. t.fact_head .. head .. buyer .. t.fact_tail
  live_args[at + 1], live_args[at + 2] = id, t.record_head .. head .. buyer .. t.record_tail
  at = at + 2
  return t.accepted
end

local function decide(i, id, t, buyer)
  local prior = orders[id]
  if prior then
    if prior[PRINT] ~= t.print then return refuse('conflict') end
    return tell({ 'replayed', prior[STATE], prior[AMOUNT], prior[CURRENCY], prior[PAY_BY] })
  end
  local r = t.rule
  if t.closed then return refuse(t.closed) end
  local held = (counts[t.sku][buyer] or 0) + t.quantity
  if held > r.limit then return refuse('limit_reached') end
  if r.free < t.quantity or now < r.rests_ms then return refuse('sold_out') end
  return accept(i, id, t, buyer, held)
end

for i = 1, #ids do said[i] = decide(i, ids[i], terms[which[i]], buyers[i]) end

-- --- the writes -----------------------------------------------------------------------------------------------------

local ids_now, ids_before = root .. ':ids:' .. gen .. ':', root .. ':ids:' .. (gen - 1) .. ':'
for sku, r in pairs(rules) do
  if r and r.names and #r.names > 0 then
    write_names(sku, r.names)
    call('HSET', root .. ':sku:' .. sku, 'free', r.free)
    call('HSET', root .. ':bought:' .. sku, unpack(r.bought))
  end
end
if at > 0 then
  call('HSET', live, unpack(live_args))
  for _, t in ipairs(terms) do
    if t.due_ids then call('ZADD', due, t.pay_by, table.concat(t.due_ids)) end
  end
  write_facts()
end

-- --- how long a refusal is good -------------------------------------------------------------------------------------

local lasting, looked_at = {}, {}
for _, t in ipairs(terms) do
  local r, outcome, good_ms = t.rule, nil, rest_ms
  if t.closed == 'not_open' then
    outcome, good_ms = 'not_open', math.min(rest_ms, r.opens_ms - now)
  elseif r and not t.closed and r.free <= 0 then
    outcome = 'sold_out'
  end
  if outcome and rest_ms > 0 and not looked_at[t.sku] then
    looked_at[t.sku] = true
    local names, before = call('STRLEN', ids_now .. t.sku), call('STRLEN', ids_before .. t.sku)
    insert(lasting, { t.sku, outcome, good_ms, gen, names, before })
  end
end
return pack({ answers, said, lasting })
