-- The sealed keys of delivered orders, in the order of their lines. $1 order ids.
SELECT d.order_id, k.id, k.sealed
FROM deliveries d
JOIN card_keys k ON k.id = d.key_id
WHERE d.order_id = ANY ($1::uuid[])
ORDER BY d.order_id, d.line
