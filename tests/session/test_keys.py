from __future__ import annotations

import csv
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.session import keys
from avccfs.session.keys import Form

_BYTES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="a\\'\"\n\t\0,%\u202e\u0085é", max_size=12).map(str.encode),
)
_JSON_FORMS = (Form.HEX, Form.ESCAPE, Form.UTF8)


@given(_BYTES, st.sampled_from(Form))
def test_every_form_is_read_back(data: bytes, form: Form) -> None:
    text = keys.show(form)(data)
    if form is Form.RAW:
        assert text.encode("utf-8", "surrogateescape") == data
        if os.fsencode("é") == b"\xc3\xa9":
            assert keys.parse(form, text) == data
    else:
        assert keys.parse(form, text) == data


@given(_BYTES, st.sampled_from(_JSON_FORMS))
def test_nothing_that_a_terminal_obeys_is_written(data: bytes, form: Form) -> None:
    assert keys.show(form)(data).isprintable()
    assert keys.in_text(form).show(data).isprintable()
    assert keys.in_json(form).show(data).isprintable()


@given(_BYTES, st.sampled_from(_JSON_FORMS))
def test_strings_of_json_say_the_same(data: bytes, form: Form) -> None:
    assert json.loads(keys.in_json(form).show(data)) == keys.show(form)(data)


@given(_BYTES, st.sampled_from(Form))
def test_a_csv_reader_gets_the_same(data: bytes, form: Form) -> None:
    line = f"{keys.in_csv(form).show(data)},next\r\n"
    assert next(csv.reader(io.StringIO(line, newline=""))) == [keys.show(form)(data), "next"]


@given(_BYTES, st.sampled_from(Form))
def test_plain_bytes_are_written_as_they_are(data: bytes, form: Form) -> None:
    for choose in (keys.in_text, keys.in_csv, *([keys.in_json] if form is not Form.RAW else [])):
        notation = choose(form)
        if data and not data.translate(None, notation.plain):
            written = notation.show(data).encode("utf-8", "surrogateescape")
            quote = notation.quote.encode()
            assert written == quote + data + quote


@given(_BYTES)
def test_quotes_end_where_the_key_ends(data: bytes) -> None:
    for form in (Form.ESCAPE, Form.UTF8):
        inside = keys.in_text(form).show(data)[1:-1]
        assert "'" not in inside.replace("\\\\", "").replace("\\'", "")


@pytest.mark.parametrize(
    ("form", "text", "data"),
    [
        (Form.HEX, "6B65ff", b"ke\xff"),
        (Form.HEX, "0x00", b"\0"),
        (Form.HEX, "", b""),
        (Form.ESCAPE, r"a\x00\xfF\\\'\"\n\r\t\0", b"a\0\xff\\'\"\n\r\t\0"),
        (Form.ESCAPE, "é", b"\xc3\xa9"),
        (Form.UTF8, "é\\xff", b"\xc3\xa9\xff"),
        (Form.UTF8, "\udcff", b"\xff"),
        (Form.RAW, r"\x00", rb"\x00"),
    ],
)
def test_keys_are_read(form: Form, text: str, data: bytes) -> None:
    assert keys.parse(form, text) == data


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        (Form.HEX, "abc", "hexadecimal digits, found 'abc'"),
        (Form.HEX, "key", "hexadecimal digits"),
        (Form.ESCAPE, r"C:\dir", "double a backslash that means itself"),
        (Form.UTF8, "end\\", "where a backslash stands"),
        (Form.ESCAPE, r"\x4", "where a backslash stands"),
    ],
)
def test_what_is_no_key_is_refused(form: Form, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("\\", "\\\\")):
        keys.parse(form, text)


def test_json_has_no_raw_bytes() -> None:
    with pytest.raises(ValueError, match="hex, escape or utf8"):
        keys.in_json(Form.RAW)


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        (Form.HEX, "c3a90a27ff"),
        (Form.ESCAPE, r"\xc3\xa9\n\'\xff"),
        (Form.UTF8, r"é\n\'\xff"),
    ],
)
def test_forms_look_like_this(form: Form, shown: str) -> None:
    assert keys.show(form)(b"\xc3\xa9\n'\xff") == shown


def test_names_of_files_are_safe() -> None:
    assert keys.safe_name("it's \x1b[31m\udcff") == r"it's \x1b[31m\xff"
