"""Mount options: the comma-separated words after `-o`, and what they mean here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from avccfs.errors import UsageError
from avccfs.format.filename import Kind, kind_of

# Words the kernel or libfuse understands; they are handed on as they are.
_KERNEL_WORDS = frozenset({"allow_other", "allow_root", "default_permissions", "auto_unmount"}) | {
    *("suid", "nosuid", "dev", "nodev", "exec", "noexec"),
    *("sync", "async", "dirsync", "atime", "noatime"),
}
_KERNEL_VALUES = frozenset({"fsname", "subtype", "max_read"})
# Words of fstab and mount(8) that are for others to read, or that change nothing here.
_IGNORED = frozenset({"defaults", "auto", "noauto", "_netdev", "nofail", "owner", "group"}) | {
    *("user", "nouser", "users", "nousers"),
    *("relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime"),
}
# The folder that LevelDB's repair makes for what it puts aside.
_LOST = "lost"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount."""

    read_only: bool = False
    unlocked: bool = False
    """Look at a directory that somebody else has open: no lock, read-only, no caching."""
    write_through: bool = False
    """Every write is a request of its own, instead of being collected by the kernel."""
    faults: tuple[str, ...] = ()
    """Lines of a fault plan; even one that says nothing makes the mount exact."""
    overlay: str | None = None
    """Where changes go instead of into the source: a directory, or "" for memory."""
    foreground: bool = False
    views_name: str = ".avccfs"
    """What the hidden folder of views is called; empty for none."""
    log_file: str | None = None
    verbose: bool = False
    debug_fuse: bool = False
    kernel: frozenset[str] = field(default_factory=frozenset)
    """Options for the kernel and libfuse."""

    @property
    def caching(self) -> bool:
        """Whether the kernel may cache: only if nobody else can change the directory."""
        return not self.unlocked

    @property
    def exact(self) -> bool:
        """Whether operations must be those of the engine, one by one, because faults count them."""
        return bool(self.faults)

    @property
    def write_back(self) -> bool:
        """Whether the kernel may collect writes."""
        return not (self.write_through or self.exact or self.read_only or self.unlocked)

    def with_views(self, name: str) -> MountOptions:
        """These options with another name for the hidden folder. Raises `UsageError`."""
        one_name = "/" not in name and name not in (".", "..") and len(os.fsencode(name)) <= 255
        if not one_name or name == _LOST or kind_of(name) is not Kind.FOREIGN:
            raise UsageError(
                f"the views cannot be called {name!r}: it must be one name, and none of a database file"
            )
        return replace(self, views_name=name)

    def with_words(self, text: str) -> MountOptions:
        """These options and the comma-separated ones in `text`. Raises `UsageError`."""
        options = self
        kernel = set(self.kernel)
        for word in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = word.partition("=")
            if word == "ro":
                options = replace(options, read_only=True)
            elif word == "rw":
                options = replace(options, read_only=False)
            elif word == "unlocked":
                options = replace(options, unlocked=True)
            elif word == "write_through":
                options = replace(options, write_through=True)
            elif key == "views_name" and equals:
                options = options.with_views(value)
            elif key == "overlay" and (value or not equals):
                options = replace(options, overlay=os.path.abspath(value) if value else "")
            elif key == "log_file" and value:
                options = replace(options, log_file=os.path.abspath(value))
            elif word in _KERNEL_WORDS or (key in _KERNEL_VALUES and equals):
                kernel.add(word)
            elif word in _IGNORED or word.startswith(("x-", "comment=")):
                continue
            else:
                raise UsageError(
                    f"unknown mount option {word!r}; known are: ro, rw, unlocked, write_through, "
                    f"overlay[=DIR], views_name=NAME, log_file=FILE, {', '.join(sorted(_KERNEL_WORDS))}, "
                    f"{', '.join(f'{name}=' for name in sorted(_KERNEL_VALUES))}"
                )
        return replace(options, kernel=frozenset(kernel))

    def for_libfuse(self, source: str) -> set[str]:
        """What `pyfuse3.init` is given; `source` is what `df` and `mount` shall show."""
        words = set(self.kernel)
        given = {word.partition("=")[0] for word in words}
        if "fsname" not in given:
            # A comma would end the option; the kernel's tables escape the rest.
            words.add("fsname=" + source.replace("\\", "\\\\").replace(",", "\\,"))
        if "subtype" not in given:
            words.add("subtype=avccfs")
        # The kernel checks modes and owners, as on a local disk; without it whoever may enter the
        # mount would act with this process's rights.
        words.add("default_permissions")
        if self.read_only or self.unlocked:
            words.add("ro")
        if self.debug_fuse:
            words.add("debug")
        return words
