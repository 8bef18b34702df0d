-- Where a batch of orders stands in the record. $1 order ids.
SELECT id, sku, buyer, quantity, amount, currency, state,
       (extract(epoch FROM pay_by) * 1000)::bigint AS pay_by_ms
FROM orders
WHERE id = ANY ($1::uuid[])
