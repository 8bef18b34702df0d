-- Claims and delivers: keys for paid orders, in one guarded statement. $1 order ids.
--
-- An order gets all of its keys or none; one that somebody moved meanwhile is not `whole`. A key is taken only while it
-- is free (locked, and checked again by the update); UNIQUE on the key and on the order's line says the same a second
-- time. Keys go out in the order they came in. Linear in the batch as long as lines meet keys in a hash join: the
-- caller's session has merge joins off, because the planner, which cannot know the batch, would sort by SKU alone and
-- compare every line of a hot SKU with every key.
-- Returns (order id, keys, whole): one row an order that got keys; `whole` must be true on every row, else the caller
-- rolls back.
WITH owed AS (
    SELECT id, sku, quantity, seq
    FROM orders
    WHERE id = ANY ($1::uuid[]) AND state = 'paid'
), lines AS (
    SELECT o.id, o.sku, o.quantity, line,
           row_number() OVER (PARTITION BY o.sku ORDER BY o.seq, line) AS n
    FROM owed o, generate_series(1, o.quantity) AS line
), wanted AS (
    SELECT sku, count(*) AS units FROM lines GROUP BY sku
), free AS (
    SELECT k.id, k.sku, row_number() OVER (PARTITION BY k.sku ORDER BY k.id) AS n
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT id, sku FROM card_keys
        WHERE card_keys.sku = w.sku AND state = 'free'
        ORDER BY id
        LIMIT w.units
        FOR UPDATE SKIP LOCKED
    ) k
), matched AS (
    SELECT l.id AS order_id, l.line, l.quantity, f.id AS key_id, count(*) OVER (PARTITION BY l.id) AS found
    FROM lines l JOIN free f USING (sku, n)
), sold AS (
    UPDATE card_keys k SET state = 'sold'
    FROM matched m
    WHERE k.id = m.key_id AND m.found = m.quantity AND k.state = 'free'
    RETURNING k.id, m.order_id, m.line
), given AS (
    INSERT INTO deliveries (key_id, order_id, line)
    SELECT id, order_id, line FROM sold
    RETURNING order_id
), counted AS (
    SELECT order_id, count(*) AS keys FROM given GROUP BY order_id
), delivered AS (
    UPDATE orders o SET state = 'delivered'
    FROM counted c
    WHERE o.id = c.order_id AND o.quantity = c.keys AND o.state = 'paid'
    RETURNING o.id
), noted AS (
    INSERT INTO order_events (order_id, before, after, at)
    SELECT id, 'paid', 'delivered', now() FROM delivered
)
SELECT order_id, keys, order_id IN (SELECT id FROM delivered) AS whole
FROM counted
