-- What the record says each buyer of a SKU holds or has bought. $1 SKU, $2 the states that hold units.
SELECT buyer, sum(quantity)::bigint AS units
FROM orders
WHERE sku = $1 AND state = ANY ($2::text[])
GROUP BY buyer
