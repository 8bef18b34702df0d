-- The record of a finished order. Finished orders outnumber all others, so it is small: what answers a retry and a second
-- charge, 17 bytes and the money. What a late charge, a cancellation or a look needs besides is kept unless the order
-- is delivered: then nobody asks Valkey for it any more (see track.lua). finished.py reads and writes the same in Python.
--
-- Returns what makes it of a live order's record, and what makes it such a record again. A function, for most calls of
-- place.lua meet no finished order and need none of this.
local function finished_form()
  -- The states in the order of order.py: records number them from 1.
  local STATES = { 'reserved', 'paid', 'delivered', 'expired', 'cancelled', 'held', 'in_review', 'frozen', 'refund_due',
    'refunded' }
  local NUMBERS = {}
  for number, state in ipairs(STATES) do NUMBERS[state] = number end
  local HEAD = '>BI4I4I8'  -- state, fingerprint in two halves, pay_by

  local function close(order)
    local print = order[PRINT]
    local head = struct.pack(HEAD, NUMBERS[order[STATE]], tonumber(sub(print, 1, 8), 16), tonumber(sub(print, 9), 16),
      order[PAY_BY])
    if order[STATE] == 'delivered' then return head .. pack(order[AMOUNT], order[CURRENCY]) end
    return head .. pack(order[AMOUNT], order[CURRENCY], order[SKU], order[BUYER], order[QUANTITY])
  end

  local function open(value)
    local number, high, low, pay_by, at = struct.unpack(HEAD, value)
    local amount, currency, sku, buyer, quantity = unpack_value(sub(value, at))
    return { STATES[number], string.format('%08x%08x', high, low), sku, buyer, quantity, amount, currency, pay_by, 0 }
  end

  return close, open
end
