"""Two runs side by side: whether they may be compared, by how much they differ, and how sure that is."""
