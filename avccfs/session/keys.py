"""How keys and values are written down for people and for other programs, and read back.

    hex      6b6579ff
    escape   key\\xff           printable ASCII as it is; what else there is as in a bytes literal
    utf8     key\\xff           the same, but printable characters of UTF-8 as they are
    raw      the bytes themselves

All four lose nothing: `parse` gives back the bytes. What `escape` and `utf8` write has no control
characters, nor characters that turn the direction of text: a terminal shows it and does nothing.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Show = Callable[[bytes], str]


class Form(enum.Enum):
    """A way to write bytes. The values are the names on the command line."""

    HEX = "hex"
    ESCAPE = "escape"
    UTF8 = "utf8"
    RAW = "raw"


_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_PLAIN: Final = _PRINTABLE.translate(None, b"\\'")
"""Bytes that `escape` and `utf8` leave as they are, inside of single quotes too."""
_PLAIN_IN_DOUBLE: Final = _PLAIN.translate(None, b'"')

_ESCAPES: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([\\'\"nrt0]))|\\")
_SINGLE: Final = {
    b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notation:
    """A form in quotes: how bytes stand inside of a line."""

    show: Show
    """The quotes are included. Of `raw` each byte that is not UTF-8 becomes a surrogate: encode
    with `surrogateescape`."""
    quote: str
    plain: bytes
    """All bytes that stand for themselves, if only such come together."""


def show(form: Form) -> Show:
    """What writes bytes in this form, without quotes around them."""
    return _SHOW[form]


def in_text(form: Form) -> Notation:
    """In single quotes; inside of them a quote is escaped, unless the form is `raw`."""
    return _IN_TEXT[form]


def in_json(form: Form) -> Notation:
    """As a string of JSON. `raw` is refused with a `ValueError`: JSON has no bytes."""
    if form is Form.RAW:
        raise ValueError("JSON has no bytes: choose hex, escape or utf8 and not raw")
    return _IN_JSON[form]


def in_csv(form: Form) -> Notation:
    """As a field of CSV, always in double quotes; inside of them a double quote is doubled."""
    return _IN_CSV[form]


def parse(form: Form, text: str) -> bytes:
    """The bytes that are written as `text`. Raises `ValueError`, which says what is wrong.

    A lone surrogate, as in arguments of a command that are not UTF-8, stands for its byte.
    """
    if form is Form.HEX:
        try:
            return bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            raise ValueError(
                f"expected an even number of hexadecimal digits, found {text!a}"
            ) from None
    if form is Form.RAW:
        return os.fsencode(text)

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes([int(match[1], 16)])
        if match[2] is not None:
            return _SINGLE[match[2]]
        raise ValueError(
            "expected \\xNN, \\n, \\r, \\t, \\0, \\', \\\" or \\\\ where a backslash stands, found "
            f"{text!a}; double a backslash that means itself, or give the key as hex"
        )

    return _ESCAPES.sub(byte, text.encode("utf-8", "surrogateescape"))


def safe_name(name: str) -> str:
    """The name of a file such that a terminal only shows it."""
    return _utf8(os.fsencode(name)).replace("\\'", "'")


def _escape(data: bytes) -> str:
    # The quote in front makes `repr` choose single quotes around it, whatever is in `data`.
    return repr(b'"' + data)[3:-1]


def _utf8(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text and "'" not in text:
        return text
    return "".join(
        each
        if each.isprintable() and each not in "\\'"
        else _escape(each.encode("utf-8", "surrogateescape"))
        for each in text
    )


def _raw(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _quoted_escape(data: bytes) -> str:
    return "'" + repr(b'"' + data)[3:]


def _quoted(bare: Show) -> Show:
    return lambda data: f"'{bare(data)}'"


def _json(bare: Show) -> Show:
    def string(data: bytes) -> str:
        body = bare(data).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{body}"'

    return string


def _csv(bare: Show) -> Show:
    def field(data: bytes) -> str:
        body = bare(data).replace('"', '""')
        return f'"{body}"'

    return field


_SHOW: Final[dict[Form, Show]] = {
    Form.HEX: bytes.hex,
    Form.ESCAPE: _escape,
    Form.UTF8: _utf8,
    Form.RAW: _raw,
}
_IN_TEXT: Final = {
    Form.HEX: Notation(_quoted(bytes.hex), "'", b""),
    Form.ESCAPE: Notation(_quoted_escape, "'", _PLAIN),
    Form.UTF8: Notation(_quoted(_utf8), "'", _PLAIN),
    Form.RAW: Notation(_quoted(_raw), "'", bytes(range(256))),
}
_IN_JSON: Final = {
    Form.HEX: Notation(lambda data: f'"{data.hex()}"', '"', b""),
    Form.ESCAPE: Notation(_json(_escape), '"', _PLAIN_IN_DOUBLE),
    Form.UTF8: Notation(_json(_utf8), '"', _PLAIN_IN_DOUBLE),
}
_IN_CSV: Final = {
    Form.HEX: Notation(lambda data: f'"{data.hex()}"', '"', b""),
    Form.ESCAPE: Notation(_csv(_escape), '"', _PLAIN_IN_DOUBLE),
    Form.UTF8: Notation(_csv(_utf8), '"', _PLAIN_IN_DOUBLE),
    Form.RAW: Notation(_csv(_raw), '"', bytes(range(256)).replace(b'"', b"")),
}
