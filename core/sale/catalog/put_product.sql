-- Adds a product or gives it new terms. $1 sku, $2 title, $3 price, $4 currency, $5 limit, $6 hold ms, $7 opens ms,
-- $8 closes ms, $9 low stock. The sold orders keep the terms they were placed under.
INSERT INTO products (sku, title, price, currency, buyer_limit, hold_ms, opens_at, closes_at, low_stock)
VALUES ($1, $2, $3, $4, $5, $6,
        CASE WHEN $7::bigint > 0 THEN to_timestamp($7::bigint / 1000.0) END,
        CASE WHEN $8::bigint > 0 THEN to_timestamp($8::bigint / 1000.0) END, $9)
ON CONFLICT (sku) DO UPDATE
SET title = excluded.title, price = excluded.price, currency = excluded.currency,
    buyer_limit = excluded.buyer_limit, hold_ms = excluded.hold_ms,
    opens_at = excluded.opens_at, closes_at = excluded.closes_at, low_stock = excluded.low_stock
