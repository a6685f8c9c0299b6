"""Symbolic links that stay inside (what a link on the mount may lead to).

The kernel resolves a link itself, with the rights of whoever follows it, so a link that leads out of
the database directory can only be kept from doing so by not telling where it leads. A target is
told when it is sure to stay inside: some `..` at its beginning, no more than the folder lies deep,
then names. A `..` after a name is not sure, for that name may be a link itself. An absolute target
inside the source directory is told relative to the link, so that it stays on the mount.
"""

from __future__ import annotations


def contain(target: str, depth: int, source: str | None) -> str | None:
    """The target to tell for a link that lies `depth` folders below the root, None if it leads out.

    `source` is the absolute path of the directory that the mount shows, None where it has no path.
    """
    if target.startswith("/"):
        if source is None:
            return None
        root = source.rstrip("/")
        if target.rstrip("/") == root:
            target = root + "/."
        if not target.startswith(root + "/"):
            return None
        target = "../" * depth + target[len(root) :].lstrip("/")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if not target or ups > depth or ".." in parts[ups:]:
        return None
    return target
