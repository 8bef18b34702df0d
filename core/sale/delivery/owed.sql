-- Paid orders that still wait for keys: those of products that have keys first, so that a thousand orders of one without
-- never stand before them; then the oldest. $1 how many.
SELECT w.order_id AS id
FROM owed w
LEFT JOIN orders o ON o.id = w.order_id
ORDER BY o.state IS DISTINCT FROM 'paid'
         OR EXISTS (SELECT FROM card_keys k WHERE k.sku = o.sku AND k.state = 'free') DESC,
         w.since, o.seq
LIMIT $1
