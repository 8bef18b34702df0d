-- Lines of the file being imported whose key the store has already. Reads the temporary table `uploaded`.
SELECT u.line, k.sku, k.state
FROM uploaded u
JOIN card_keys k USING (key_hash)
ORDER BY u.line
LIMIT $1
