-- A page of the catalog. $1 the SKU before it, $2 how many.
SELECT sku, title, price, currency, buyer_limit, hold_ms,
       coalesce((extract(epoch FROM opens_at) * 1000)::bigint, 0) AS opens_ms,
       coalesce((extract(epoch FROM closes_at) * 1000)::bigint, 0) AS closes_ms,
       low_stock
FROM products
WHERE sku > $1 COLLATE "C"
ORDER BY sku COLLATE "C"
LIMIT $2
