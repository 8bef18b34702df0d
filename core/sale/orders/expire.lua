-- Releases reservations whose time is over, oldest first.
--
-- ARGV[2]  how many at most    ARGV[3]  ms after which a started payment is asked about again
-- ARGV[4]  order ids (16 bytes each, joined) whose gateway said: not charged
-- returns  {msgpack {released, next_due_ms or 0}, joined ids to ask the gateway about}
--
-- A reservation with a started payment is not released on time alone: its id is returned, and the next look at it is
-- put off, so that one slow gateway never stands before the others.
-- Cost: 2 reads, up to 8 writes a batch.

local ids = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local uncharged = {}
for _, id in ipairs(split_ids(ARGV[4])) do
  uncharged[id] = true
  insert(ids, id)
end
fetch(ids)

local ask, later, stray, released = {}, {}, {}, 0
for _, id in ipairs(ids) do
  local order = orders[id]
  if not order or found_in[id] == 'done' or order[STATE] ~= 'reserved' then
    if not finished[id] then insert(stray, id) end
  elseif order[STARTED] ~= 0 and not uncharged[id] then
    insert(ask, id)
    insert(later, now + tonumber(ARGV[3]))
    insert(later, id)
  elseif order[PAY_BY] <= now then
    take(order[SKU], order[BUYER], -order[QUANTITY])
    finish(id, 'expired')
    record_fact(id, { 'released', 'expired', now })
    released = released + 1
  end
end
commit()
if #stray > 0 then call('ZREM', due, unpack(stray)) end
if #later > 0 then call('ZADD', due, unpack(later)) end
local next_due = call('ZRANGE', due, 0, 0, 'WITHSCORES')
return { pack({ released, tonumber(next_due[2] or '0') }), table.concat(ask) }
