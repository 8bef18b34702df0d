-- Reads where a batch of orders stands. Writes nothing.
--
-- ARGV[2]  the order ids, 16 bytes each, joined
-- returns  msgpack {{state, sku, quantity, amount, currency, pay_by_ms} or false, …}; false: ask PostgreSQL, which alone
--          has orders that are long over, and delivered ones in full
-- Cost: 1 to 3 reads a batch.

local ids = split_ids(ARGV[2])
fetch(ids)
local answers = {}
for i, id in ipairs(ids) do
  local order = orders[id]
  local known = order and order[STATE] ~= 'delivered'
  answers[i] = known and { order[STATE], order[SKU], order[QUANTITY], order[AMOUNT], order[CURRENCY], order[PAY_BY] } or false
end
return pack(answers)
