"""The levels of a database over its keys, record by record of a manifest: all that a picture needs."""
