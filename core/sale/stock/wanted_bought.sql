-- What the record says each buyer of each SKU holds or has bought. $1 the states that hold units.
SELECT sku, buyer, sum(quantity)::bigint AS units
FROM orders
WHERE state = ANY ($1::text[])
GROUP BY sku, buyer
