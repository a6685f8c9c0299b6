"""Bytes to records and back. No I/O: nothing here knows a file, only what would be in it."""
