-- Cancels a batch of unpaid orders at their buyers' wish.
--
-- ARGV[1]  msgpack {epoch, {uncharged, …}}: uncharged is true when the gateway was asked and had charged nothing
-- ARGV[2]  the order ids, 16 bytes each, joined
-- returns  msgpack {{outcome, state}, …}: cancelled, repeated, payment_started (ask the gateway first),
--          not_cancellable, unknown_order, fenced
-- Cost: 1 to 3 reads, up to 8 writes a batch.

local request = unpack_value(ARGV[1])
local ids = split_ids(ARGV[2])
local answers = {}
if epoch == tostring(request[1]) and epoch ~= '0' then fetch(ids) end

local function decide(id, uncharged)
  if epoch ~= tostring(request[1]) or epoch == '0' then return { 'fenced' } end
  local order = orders[id]
  if not order then return { 'unknown_order' } end
  if order[STATE] == 'cancelled' then return { 'repeated', 'cancelled' } end
  if order[STATE] ~= 'reserved' then return { 'not_cancellable', order[STATE] } end
  if order[STARTED] ~= 0 and not uncharged then return { 'payment_started', 'reserved' } end
  take(order[SKU], order[BUYER], -order[QUANTITY])
  finish(id, 'cancelled')
  record_fact(id, { 'released', 'cancelled', now })
  return { 'cancelled', 'cancelled' }
end

for i, id in ipairs(ids) do answers[i] = decide(id, request[2][i]) end
commit()
return pack(answers)
