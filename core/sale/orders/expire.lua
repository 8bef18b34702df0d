-- Releases reservations whose time is over, oldest first.
--
-- ARGV[2]  three msgpack values: how many to look at before it stops · ms after which a started payment is asked about
--          again · order ids (16 bytes each, joined) whose gateway said: not charged
-- returns  {msgpack {released, next_due_ms or 0}, joined ids to ask the gateway about}
--
-- A reservation with a started payment is not released on time alone: its id is returned, and the next look at it is
-- put off, so that one slow gateway never stands before the others. An order that was paid or has ended meanwhile is passed
-- over: nobody takes it out of the queue before its time.
-- Cost: 3 reads, up to 8 writes a batch.

local AT_A_TIME = 64  -- members of the queue read at once; each names one order or a batch of them
local ids, over = {}, {}
local most, again_ms, not_charged = unpack_value(ARGV[2])
for _, joined in ipairs(call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, math.min(most, AT_A_TIME))) do
  if #ids > 0 and #ids + #joined / 16 > most then break end
  insert(over, joined)
  for _, id in ipairs(split_ids(joined)) do insert(ids, id) end
end
local uncharged = {}
for _, id in ipairs(split_ids(not_charged)) do
  uncharged[id] = true
  insert(ids, id)
end
fetch_from(live, ids, 'live', unpack_value)

local ask, later, released = {}, {}, 0
for _, id in ipairs(ids) do
  local order = orders[id]
  if not order or order[STATE] ~= 'reserved' then
    -- paid, or ended
  elseif order[STARTED] ~= 0 and not uncharged[id] then
    insert(ask, id)
    insert(later, now + again_ms)
    insert(later, id)
  elseif order[PAY_BY] <= now then
    take(order[SKU], order[BUYER], -order[QUANTITY])
    finish(id, 'expired')
    record_fact(id, { 'released', 'expired', now })
    released = released + 1
  else
    insert(later, order[PAY_BY])
    insert(later, id)
  end
end
commit()
if #over > 0 then call('ZREM', due, unpack(over)) end
if #later > 0 then call('ZADD', due, unpack(later)) end
local next_due = call('ZRANGE', due, 0, 0, 'WITHSCORES')
return { pack({ released, tonumber(next_due[2] or '0') }), table.concat(ask) }
