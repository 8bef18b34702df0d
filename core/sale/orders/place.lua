-- Places a batch of orders: decides all of them, then writes what was accepted.
--
-- ARGV[2]  four msgpack values: kinds {{sku, fingerprint, quantity, count, names, frames}, …} · ids · buyers · twins
--          kinds: orders of one kind stand together, in the order of the kinds, and are decided in that order
--          names: the first 8 bytes of each id, joined; frames: what the journal keeps of each order by itself (facts.py),
--          joined, FRAME bytes longer than its buyer each; ids: 16 bytes each
--          twins: whether an id or a buyer stands there twice
-- returns  msgpack {answers, said, lasting}
--          answers: {{outcome, state, amount, currency, pay_by_ms}, …}, each once (a refusal is {outcome})
--          said: of each kind, the answer (from 1) of all its orders, or a list: of each
--          lasting: {{sku, outcome, good_ms, gen, ids, ids_before}, …}: no new order of this SKU is accepted by anybody for
--          good_ms from now, and ids (bytes in `ids:<gen>:<sku>`, and in the generation before) names all that there are
--
-- In a flash sale nearly all orders of a batch are of one kind. So what they share (rule, terms, the answer, all bytes of
-- the record but the buyer, their fact) is made once a kind, the worker brings joined what is the same for all when all
-- are accepted, and an order by itself is a few steps of one loop without a function call or a table: Lua was three
-- quarters of what an order cost Valkey (callgrind). Only with twins is anything looked up by name in Lua.
--
-- Cost: 5 + SKUs + kinds reads and 3 + 3·kinds writes (and an EXPIRE for a SKU's first names) whatever the number of
-- orders; 2 reads a SKU that is sold out.

local FRAME = 22  -- id, check, length

local kinds, ids, buyers, twins = unpack_value(ARGV[2])

local prior = {}  -- by place in the batch: the record of an order that is there already
local open = unpack_value
for number, key in ipairs({ live, done, done_before }) do
  local values = call('HMGET', key, unpack(ids))
  for i = 1, #values do
    local value = values[i]
    if value and not prior[i] then
      if number > 1 and open == unpack_value then open = select(2, finished_form()) end
      prior[i] = open(value)
    end
  end
end

-- --- the decision ---------------------------------------------------------------------------------------------------

local answers, refusals = {}, {}
local placed, holds = {}, {}  -- with twins: id -> record, sku -> buyer -> units, of what this call has accepted
local live_args, due_args, records = {}, {}, {}
local at = 0  -- in live_args

local function tell(answer)
  answers[#answers + 1] = answer
  return #answers
end

local function refuse(outcome)
  local known = refusals[outcome] or tell({ outcome })
  refusals[outcome] = known
  return known
end

local function again(record, print)
  if record[PRINT] ~= print then return refuse('conflict') end
  return tell({ 'replayed', record[STATE], record[AMOUNT], record[CURRENCY], record[PAY_BY] })
end

local function closed_because(r)
  if not r then return 'unknown_product' end
  if now < r.opens_ms then return 'not_open' end
  if r.closes_ms > 0 and now >= r.closes_ms then return 'closed' end
end

-- The head of a text of so many bytes, as msgpack has it.
local function head_of(length)
  if length < 32 then return string.char(160 + length) end
  if length < 256 then return string.char(217, length) end
  return string.char(218, math.floor(length / 256), length % 256)
end

-- Of what the worker has joined, the pieces of those that were accepted.
local function accepted_of(kind, first, said, accepted)
  local names, frames, its_ids, from = {}, {}, {}, 1
  for i = 1, #said do
    local size = FRAME + #buyers[first + i - 1]
    if said[i] == accepted then
      local n = #names + 1
      names[n], frames[n], its_ids[n] = sub(kind[5], 8 * i - 7, 8 * i), sub(kind[6], from, from + size - 1), ids[first + i - 1]
    end
    from = from + size
  end
  return table.concat(names), table.concat(frames), table.concat(its_ids)
end

-- Notes what is to be written for the orders of a kind that were accepted under this answer.
local function note(kind, first, said, accepted, all, pay_by)
  local last = first + #said - 1
  if all then
    kind.names, kind.due = kind[5], table.concat(ids, '', first, last)
  else
    kind.names, kind[6], kind.due = accepted_of(kind, first, said, accepted)
  end
  local r = rules[kind[1]]
  local terms = '\151' .. pack('placed', kind[1], kind[3], r.price * kind[3], r.currency, now, pay_by)
  terms = sub(redis.sha1hex(terms), 1, 16) .. terms
  local size = struct.pack('>I2', #terms)
  records[#records + 1] = table.concat({ 'P', size, terms, kind[6], terms, size, 'P' })  -- terms twice: see facts.py
  local n = #due_args
  due_args[n + 1], due_args[n + 2] = whole(pay_by), kind.due
end

-- Decides the orders of a kind, whose first has the place `first`; returns their answers.
local function decide(kind, first)
  local sku, print, quantity, said = kind[1], kind[2], kind[3], {}
  local last, r = first + kind[4] - 1, rule(sku)
  local closed = closed_because(r)
  kind.closed = closed
  local held, accepted, bought, count = {}, nil, {}, 0
  local amount, pay_by, record_head, record_tail, free, limit, resting
  if not closed then
    held = call('HMGET', root .. ':bought:' .. sku, unpack(buyers, first, last))
    amount, pay_by, free, limit, resting = r.price * quantity, now + r.hold_ms, r.free, r.limit, now < r.rests_ms
    -- A record of 9 values around the buyer.
    record_head, record_tail = '\153' .. pack('reserved', print, sku), pack(quantity, amount, r.currency, pay_by, 0)
  end
  local mine = twins and (holds[sku] or {})
  if twins then holds[sku] = mine end
  local heads, texts = {}, {}  -- by a buyer's length, what a record begins with; units as text
  for i = first, last do
    local id, buyer, nth, answer = ids[i], buyers[i], i - first + 1, nil
    local before = prior[i] or (twins and placed[id])
    if before then
      answer = again(before, print)
    elseif closed then
      answer = refuse(closed)
    else
      local had = twins and mine[buyer] or held[nth]
      local units = had and had + quantity or quantity
      if units > limit then
        answer = refuse('limit_reached')
      elseif free < quantity or resting then
        answer = refuse('sold_out')
      else
        free = free - quantity
        local head, text = heads[#buyer], texts[units]
        if not head then
          head = record_head .. head_of(#buyer)
          heads[#buyer] = head
        end
        if not text then
          text = whole(units)
          texts[units] = text
        end
        bought[count + 1], bought[count + 2] = buyer, text
        live_args[at + 1], live_args[at + 2] = id, head .. buyer .. record_tail
        count, at = count + 2, at + 2
        if twins then
          mine[buyer] = units
          placed[id] = { 'reserved', print, sku, buyer, quantity, amount, r.currency, pay_by, 0 }
        end
        answer = accepted or tell({ 'accepted', 'reserved', amount, r.currency, pay_by })
        accepted = answer
      end
    end
    said[nth] = answer
  end
  if count == 0 then return said end
  r.free, kind.bought = free, bought
  local all = count == 2 * #said
  note(kind, first, said, accepted, all, pay_by)
  return all and accepted or said
end

local said, first = {}, 1
for k, kind in ipairs(kinds) do
  said[k] = decide(kind, first)
  first = first + kind[4]
end

-- --- the writes -----------------------------------------------------------------------------------------------------

if at > 0 then
  for _, kind in ipairs(kinds) do
    local sku = kind[1]
    if kind.bought then
      write_names(sku, kind.names)
      call('HSET', root .. ':sku:' .. sku, 'free', whole(rules[sku].free))
      call('HSET', root .. ':bought:' .. sku, unpack(kind.bought))
    end
  end
  call('HSET', live, unpack(live_args))
  call('ZADD', due, unpack(due_args))
  write_facts(records)
end

-- --- how long a refusal is good -------------------------------------------------------------------------------------

local lasting, looked_at = {}, {}
for _, kind in ipairs(kinds) do
  local sku = kind[1]
  local r, outcome, good_ms = rules[sku], nil, rest_ms
  if kind.closed == 'not_open' then
    outcome, good_ms = 'not_open', math.min(rest_ms, r.opens_ms - now)
  elseif r and not kind.closed and r.free <= 0 then
    outcome = 'sold_out'
  end
  if outcome and rest_ms > 0 and not looked_at[sku] then
    looked_at[sku] = true
    local ids_now, ids_before = root .. ':ids:' .. gen .. ':' .. sku, root .. ':ids:' .. (gen - 1) .. ':' .. sku
    lasting[#lasting + 1] = { sku, outcome, good_ms, gen, call('STRLEN', ids_now), call('STRLEN', ids_before) }
  end
end
return pack({ answers, said, lasting })
