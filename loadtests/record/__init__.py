"""What a run leaves behind, read and counted."""
