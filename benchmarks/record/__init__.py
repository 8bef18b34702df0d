"""How fast the record follows the sale: rows of the projector, of delivery, and of those who wait for it."""
