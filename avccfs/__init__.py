"""avccfs: LevelDB-family database directories as file systems, for debugging crash recovery by hand."""
