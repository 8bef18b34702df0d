-- Cancels a batch of unpaid orders at their buyers' wish.
--
-- ARGV[2]  two msgpack values: {uncharged, …}, true when the gateway was asked and had charged nothing · the order ids, 16
--          bytes each, joined
-- returns  msgpack {{outcome, state}, …}: cancelled, repeated, payment_started (ask the gateway first),
--          not_cancellable, unknown_order
-- Cost: 1 to 3 reads, up to 8 writes a batch.

local uncharged, joined = unpack_value(ARGV[2])
local ids = split_ids(joined)
local answers = {}
fetch(ids)

local function decide(id, asked)
  local order = orders[id]
  if not order then return { 'unknown_order' } end
  if order[STATE] == 'cancelled' then return { 'repeated', 'cancelled' } end
  if order[STATE] ~= 'reserved' then return { 'not_cancellable', order[STATE] } end
  if order[STARTED] ~= 0 and not asked then return { 'payment_started', 'reserved' } end
  take(order[SKU], order[BUYER], -order[QUANTITY])
  finish(id, 'cancelled')
  record_fact(id, { 'released', 'cancelled', now })
  return { 'cancelled', 'cancelled' }
end

for i, id in ipairs(ids) do answers[i] = decide(id, uncharged[i]) end
commit()
return pack(answers)
