-- Charges. Arrays: $1 order id, $2 gateway, $3 event, $4 amount, $5 currency, $6 paid at ms, $7 at ms, $8 applied,
-- $9 refusal, $10 entry ms, $11 entry seq, $12 record.
-- Each event is recorded once, whatever is repeated. A charge that finds its order in no state to be paid becomes a refund due:
-- money is never dropped. Returns (order id, before, after) of the orders that moved.
WITH said AS (
    SELECT s.*, o.state AS before,
           CASE WHEN s.applied = 'first' AND o.state = 'reserved' THEN 'paid'
                WHEN s.applied = 'late' AND o.state IN ('expired', 'cancelled') THEN 'paid'
                WHEN s.applied = 'refund_due' AND s.refusal <> 'charged_twice'
                     AND o.state IN ('expired', 'cancelled') THEN 'refund_due'
           END AS after
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[],
                $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::int[])
        AS s (id, gateway, event_id, amount, currency, paid_ms, at_ms, applied, refusal, entry_ms, entry_seq, record)
    LEFT JOIN orders o ON o.id = s.id
), recorded AS (
    INSERT INTO payments (gateway, event_id, order_id, amount, currency, paid_at, applied, refusal)
    SELECT gateway, event_id, id, amount, currency, to_timestamp(paid_ms / 1000.0),
           CASE WHEN after = 'paid' THEN applied ELSE 'refund_due' END,
           CASE WHEN after = 'paid' THEN '' WHEN refusal <> '' THEN refusal ELSE 'order_not_payable' END
    FROM said
    ORDER BY entry_ms, entry_seq, record
    ON CONFLICT (gateway, event_id) DO NOTHING
    RETURNING gateway, event_id
), moved AS (
    UPDATE orders o SET state = s.after
    FROM said s JOIN recorded USING (gateway, event_id)
    WHERE o.id = s.id AND s.after IS NOT NULL AND o.state = s.before
    RETURNING o.id, s.before, s.after, s.at_ms, s.entry_ms, s.entry_seq, s.record
), noted AS (
    INSERT INTO order_events (order_id, before, after, at, entry_ms, entry_seq, record)
    SELECT id, before, after, to_timestamp(at_ms / 1000.0), entry_ms, entry_seq, record
    FROM moved
    ORDER BY entry_ms, entry_seq, record
)
SELECT id, before, after FROM moved
