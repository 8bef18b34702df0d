-- Tells the store what PostgreSQL has committed, wakes the buyers who wait, and trims the journal.
--
-- ARGV[2]  msgpack {{state, undo}, …}, one an order; undo: the order was in PostgreSQL already under this id (a retry
--          older than every idempotency record reserved it again), so its units go back
-- ARGV[3]  the order ids, 16 bytes each, joined
-- ARGV[4]  stream id up to which PostgreSQL has committed, as ms-seq of the first entry to keep; '' trims nothing
-- returns  how many units went back
--
-- Idempotent: a projector that died between its commit and this call makes it again. The epoch is not asked for: what
-- PostgreSQL committed stays true in every epoch.
-- Cost: 1 to 3 reads, up to 9 writes a batch.

-- A release that was projected while a late payment reserved the order again is old news: a paid order stays paid.
local BEFORE_PAYMENT = { reserved = true, expired = true, cancelled = true, paid = true }

local states = unpack_value(ARGV[2])
local ids = split_ids(ARGV[3])
fetch(ids)
local returned = 0
for i, id in ipairs(ids) do
  local order, state, undo = orders[id], states[i][1], states[i][2]
  if order and found_in[id] == 'live' and not finished[id] then
    if undo then
      take(order[SKU], order[BUYER], -order[QUANTITY])
      returned = returned + order[QUANTITY]
      finish(id, state)
    elseif order[STATE] == 'paid' and not BEFORE_PAYMENT[state] then
      finish(id, state)
    end
  elseif order and undo and BEFORE_PAYMENT[order[STATE]] and not BEFORE_PAYMENT[state] then
    finish(id, state)  -- the second reservation ended by itself; what is remembered is the order that was there before
  end
end
commit()
if #ids > 0 then call('PUBLISH', root .. ':moved', ARGV[3]) end
if ARGV[4] ~= '' then
  call('XTRIM', facts, 'MINID', ARGV[4])
  call('HSET', root .. ':meta', 'trimmed', ARGV[4])
end
return returned
