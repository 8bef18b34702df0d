-- The ground every script stands on; the loader puts it in front of each verb. It holds what all need and no more: each
-- closure and table made here is made in every call.
--
-- KEYS[1]  the shard's root, e.g. fp:{0}. Every key is root .. ':name': one hash tag, so one slot on a cluster.
--
--   :meta        hash    epoch (0: selling is closed), gen, run_id, trimmed, rest_ms
--   :sku:<sku>   hash    free, price, currency, limit, hold_ms, opens_ms, closes_ms, rests_ms
--   :ids:<gen>:<sku>  string  of all orders accepted in this generation, the first 8 bytes of their ids, joined
--   :bought:<sku> hash   buyer -> units held or bought
--   :live        hash    order id (16 bytes) -> record of an order not finished
--   :done:<gen>  hash    order id -> idempotency record of a finished one (see finished.lua), kept 24 to 48 h (two
--                        generations)
--   :due         zset    joined order ids by the instant their reservations end: the orders of a batch are one member, and
--                        who is paid or cancelled stays in it (expire.lua passes over them)
--   :events:<gen> hash   gateway event -> order, each by 9 bytes (see pay.lua), kept as long
--   :facts       stream  the journal
--
-- ARGV[1]  the epoch the caller believes in; a script called under another one, or while selling is closed, changes
--          nothing and answers the error FENCED. '' asks for no epoch (reads, and what stays true in every epoch).
--
-- A unit that comes back to a SKU that had none rests for meta's rest_ms before it is sold. So the word *sold out* is good
-- for that long, with every worker: none can accept an order of the SKU meanwhile, and `ids` names all that have one.
--
-- A script never writes before it has read and decided everything: Lua keeps what was written before an error.

local root = KEYS[1]
local call, pack, unpack_value, sub = redis.call, cmsgpack.pack, cmsgpack.unpack, string.sub

-- A live order's record is a msgpack array; its places:
local STATE, PRINT, SKU, BUYER, QUANTITY, AMOUNT, CURRENCY, PAY_BY, STARTED = 1, 2, 3, 4, 5, 6, 7, 8, 9

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', root .. ':meta', 'epoch', 'gen', 'rest_ms')
local epoch, gen, rest_ms = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0)
if ARGV[1] ~= '' and (ARGV[1] ~= epoch or epoch == '0') then
  return redis.error_reply('FENCED selling is closed or the epoch is over')
end
local live, due, facts = root .. ':live', root .. ':due', root .. ':facts'
local done, done_before = root .. ':done:' .. gen, root .. ':done:' .. (gen - 1)

local rules = {}  -- sku -> rule

-- A whole number as text: handed over as a number, the call would write it as a fraction, for ten times the price.
local function whole(number) return string.format('%d', number) end

-- The sale rule of a SKU with its free units, or false.
local function rule(sku)
  local known = rules[sku]
  if known ~= nil then return known end
  local v = call('HMGET', root .. ':sku:' .. sku, 'free', 'price', 'currency', 'limit', 'hold_ms', 'opens_ms', 'closes_ms',
    'rests_ms')
  known = v[2] and { free = tonumber(v[1] or 0), price = tonumber(v[2]), currency = v[3], limit = tonumber(v[4]),
    hold_ms = tonumber(v[5]), opens_ms = tonumber(v[6] or 0), closes_ms = tonumber(v[7] or 0),
    rests_ms = tonumber(v[8] or 0) } or false
  rules[sku] = known
  return known
end

local IDS_KEPT_S = 3 * 86400  -- longer than two generations

-- Names orders of a SKU in this generation: the first 8 bytes of their ids, joined. A name may stand there twice; two
-- orders that share one are both taken for known, so both are asked for here.
local function write_names(sku, joined)
  local key = root .. ':ids:' .. gen .. ':' .. sku
  if call('APPEND', key, joined) == #joined then call('EXPIRE', key, IDS_KEPT_S) end
end

-- Writes records as one entry of the journal. A stream has fields and values; both are records here, for a field's name is
-- an argument to make, to log and to store. Where their number is odd, the last value is empty.
local function write_facts(records)
  local count = #records
  if count == 0 then return end
  if count % 2 == 1 then records[count + 1] = '' end
  call('XADD', facts, '*', unpack(records))
end
