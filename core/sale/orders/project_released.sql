-- Reservations that ended without a sale. Arrays: $1 id, $2 state, $3 at ms, $4 entry ms, $5 entry seq, $6 record.
-- Returns the ids that moved.
WITH said AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[])
        AS s (id, state, at_ms, entry_ms, entry_seq, record)
), moved AS (
    UPDATE orders o SET state = s.state
    FROM said s
    WHERE o.id = s.id AND o.state = 'reserved'
    RETURNING o.id, old.state AS before, s.state AS after, s.at_ms, s.entry_ms, s.entry_seq, s.record
), noted AS (
    INSERT INTO order_events (order_id, before, after, at, entry_ms, entry_seq, record)
    SELECT id, before, after, to_timestamp(at_ms / 1000.0), entry_ms, entry_seq, record
    FROM moved
    ORDER BY entry_ms, entry_seq, record
)
SELECT id FROM moved
