-- Places a batch of orders: decides all of them in the order given, then writes what was accepted.
--
-- ARGV[2]  msgpack {{sku, fingerprint, buyer, quantity}, …}
-- ARGV[3]  the order ids, 16 bytes each, joined (cmsgpack reads no binary type; ids must not be text)
-- returns  msgpack {{outcome, state, amount, currency, pay_by_ms}, …}, one a request; a refusal is {outcome}
--
-- Cost: 2 + 2·SKUs reads and 4 + 2·SKUs writes whatever the number of orders, 1 to 2 µs of Lua each besides.

local requests = unpack_value(ARGV[2])
local ids = split_ids(ARGV[3])
local answers = {}

fetch(ids)
local buyers_of = {}
for i, ask in ipairs(requests) do
  if not orders[ids[i]] then
    local buyers = buyers_of[ask[1]]
    if not buyers then
      buyers = {}
      buyers_of[ask[1]] = buyers
    end
    buyers[#buyers + 1] = ask[3]
  end
end
for sku, buyers in pairs(buyers_of) do
  if rule(sku) then fetch_counts(sku, buyers) end
end

local function decide(id, ask)
  local sku, print, buyer, quantity = ask[1], ask[2], ask[3], ask[4]
  local prior = orders[id]
  if prior then
    if prior[PRINT] ~= print then return { 'conflict' } end
    return { 'replayed', prior[STATE], prior[AMOUNT], prior[CURRENCY], prior[PAY_BY] }
  end
  local r = rule(sku)
  if not r then return { 'unknown_product' } end
  if now < r.opens_ms then return { 'not_open' } end
  if r.closes_ms > 0 and now >= r.closes_ms then return { 'closed' } end
  if bought_of(sku, buyer) + quantity > r.limit then return { 'limit_reached' } end
  if r.free < quantity then return { 'sold_out' } end
  local amount, pay_by = r.price * quantity, now + r.hold_ms
  take(sku, buyer, quantity)
  orders[id] = { 'reserved', print, sku, buyer, quantity, amount, r.currency, pay_by, now, 0 }
  changed[id] = true
  record_fact(id, { 'placed', sku, buyer, quantity, amount, r.currency, now, pay_by })
  return { 'accepted', 'reserved', amount, r.currency, pay_by }
end

for i, ask in ipairs(requests) do answers[i] = decide(ids[i], ask) end
commit()
return pack(answers)
