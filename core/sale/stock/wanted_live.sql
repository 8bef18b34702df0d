-- Orders the record has as reserved or paid: they must be live in Valkey. A page. $1 the seq before it, $2 how many.
SELECT seq, id, sku, buyer, quantity, amount, currency, state,
       (extract(epoch FROM pay_by) * 1000)::bigint AS pay_by_ms
FROM orders
WHERE state IN ('reserved', 'paid') AND seq > $1
ORDER BY seq
LIMIT $2
