-- Paid orders that still wait for keys, oldest first. $1 how many.
SELECT id FROM orders WHERE state = 'paid' ORDER BY sku, seq LIMIT $1
