-- One product. $1 SKU.
SELECT sku, title, price, currency, buyer_limit, hold_ms,
       coalesce((extract(epoch FROM opens_at) * 1000)::bigint, 0) AS opens_ms,
       coalesce((extract(epoch FROM closes_at) * 1000)::bigint, 0) AS closes_ms,
       low_stock
FROM products
WHERE sku = $1
