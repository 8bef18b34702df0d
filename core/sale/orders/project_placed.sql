-- New orders. Arrays, one element a fact: $1 id, $2 sku, $3 buyer, $4 quantity, $5 amount, $6 currency, $7 at ms,
-- $8 pay by ms, $9 entry ms, $10 entry seq, $11 record; $12 shard.
-- An id that is there already is left alone. Returns the ids that were: a retry older than every idempotency record.
WITH said AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::bigint[],
                         $8::bigint[], $9::bigint[], $10::bigint[], $11::int[])
        AS s (id, sku, buyer, quantity, amount, currency, at_ms, pay_by_ms, entry_ms, entry_seq, record)
), fresh AS (
    INSERT INTO orders (id, shard, sku, buyer, quantity, amount, currency, state, placed_at, pay_by)
    SELECT id, $12, sku, buyer, quantity, amount, currency, 'reserved',
           to_timestamp(at_ms / 1000.0), to_timestamp(pay_by_ms / 1000.0)
    FROM said
    ORDER BY entry_ms, entry_seq, record
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), noted AS (
    INSERT INTO order_events (order_id, before, after, at, entry_ms, entry_seq, record)
    SELECT s.id, NULL, 'reserved', to_timestamp(s.at_ms / 1000.0), s.entry_ms, s.entry_seq, s.record
    FROM said s JOIN fresh USING (id)
    ORDER BY s.entry_ms, s.entry_seq, s.record
)
SELECT id FROM said WHERE NOT EXISTS (SELECT FROM fresh WHERE fresh.id = said.id)
