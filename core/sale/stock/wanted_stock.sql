-- What the record says about every SKU: units raised, voided before they were sold, and held by orders that keep them
-- from others. $1 the states that hold. One pass over each table, whatever the number of SKUs.
SELECT p.sku, coalesce(i.raised, 0) AS raised, coalesce(v.void, 0) AS void, coalesce(o.held, 0) AS held
FROM products p
LEFT JOIN (
    SELECT sku, sum(units)::bigint AS raised FROM imports WHERE raised_at IS NOT NULL GROUP BY sku
) i USING (sku)
LEFT JOIN (
    SELECT sku, count(*)::bigint AS void FROM card_keys k
    WHERE state = 'void' AND NOT EXISTS (SELECT FROM deliveries d WHERE d.key_id = k.id)
    GROUP BY sku
) v USING (sku)
LEFT JOIN (
    SELECT sku, sum(quantity)::bigint AS held FROM orders WHERE state = ANY ($1::text[]) GROUP BY sku
) o USING (sku)
