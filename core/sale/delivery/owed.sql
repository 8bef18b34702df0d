-- Paid orders that still wait for keys, oldest first. $1 how many.
SELECT order_id AS id FROM owed ORDER BY since LIMIT $1
