"""Directories of bytes: the interface, the real ones, and wrappers that compose."""
