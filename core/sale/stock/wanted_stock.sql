-- What the record says about every SKU: units raised, voided, and held by orders that keep them from others.
SELECT p.sku,
       coalesce((SELECT sum(units) FROM imports i WHERE i.sku = p.sku AND i.raised_at IS NOT NULL), 0)::bigint AS raised,
       coalesce((SELECT count(*) FROM card_keys k WHERE k.sku = p.sku AND k.state = 'void'
                   AND NOT EXISTS (SELECT FROM deliveries d WHERE d.key_id = k.id)), 0)::bigint AS void,
       coalesce((SELECT sum(quantity) FROM orders o WHERE o.sku = p.sku AND o.state = ANY ($1::text[])), 0)::bigint AS held
FROM products p
