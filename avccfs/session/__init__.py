"""File numbers, manifests, and what a session remembers."""
