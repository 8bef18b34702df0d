-- Adds an import's units to the free stock, once whatever happens.
--
-- ARGV[2]  import id (16 bytes)    ARGV[3]  SKU    ARGV[4]  units
-- returns  {outcome, free}: raised, repeated, unknown_product
-- Cost: 2 reads, 3 writes.

local r = rule(ARGV[3])
if not r then return { 'unknown_product', 0 } end
if call('HEXISTS', root .. ':imports', ARGV[2]) == 1 then return { 'repeated', r.free } end
local units = tonumber(ARGV[4])
take_free(ARGV[3], -units)
record_fact(ARGV[2], { 'stocked', ARGV[3], units, now })
call('HSET', root .. ':imports', ARGV[2], units)
commit()
return { 'raised', r.free }
