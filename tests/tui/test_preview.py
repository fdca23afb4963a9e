"""The preview: what is shown of any bytes whatever, how much of a large value is looked at, what counts as JSON."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbtui.ink import Line, plain
from mbtui.preview import LIMIT, MOST_LINES, VIEWS, json_lines, one_line, preview, several_lines
from rich.cells import cell_len

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
#: What JSON is made of, so that some of it is JSON, and some nearly.
NEARLY = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ",", ":", '"a"', '"\\u00e4"', '"\\x"', '"\n"', "1", "-", "01", "1.5e3", "1.", "true",
         "tru", "NaN", "-Infinity", "null", " ", "\n", "\ufeff", "x"]
    ),
    max_size=8,
).map("".join)  # fmt: skip


def text_of(lines: list[Line]) -> str:
    return "\n".join(map(plain, lines))


def shown(value: bytes | None, view: str, *, width: int = 80, ascii: bool = False) -> str:
    return text_of(preview(value, view, width=width, ascii=ascii).lines)


@given(st.binary(max_size=300), st.sampled_from(VIEWS), st.integers(20, 100), st.booleans())
def test_nothing_leaves_the_screen_or_steers_it(value: bytes, view: str, width: int, ascii: bool) -> None:
    made = preview(value, view, width=width, ascii=ascii)
    for line in (*made.lines, one_line(value, width, ascii=ascii), ((made.note, ""),)):
        text = plain(line)
        assert text.isprintable()
        assert text.isascii() or not ascii
    assert all(cell_len(plain(line)) <= width for line in made.lines)
    assert cell_len(plain(one_line(value, width, ascii=ascii))) <= width


@given(st.text(max_size=200), st.integers(1, 100), st.integers(1, 3))
def test_a_fact_has_no_more_lines_and_cells_than_it_may(text: str, width: int, most: int) -> None:
    lines = several_lines(text, width, most)
    assert 1 <= len(lines) <= most
    assert all(cell_len(plain(line)) <= width for line in lines)
    if all(32 <= ord(c) < 127 for c in text) and len(text) <= most * width:
        assert "".join(map(plain, lines)) == text


@given(st.binary(min_size=1, max_size=300), st.integers(20, 100))
def test_the_hexadecimal_view_tells_every_byte(value: bytes, width: int) -> None:
    made = preview(value, "hex", width=width)
    assert b"".join(bytes.fromhex(line[1][0]) for line in made.lines) == value


@given(JSON)
def test_json_is_laid_out_and_stays_the_same(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=True)
    lines = list(json_lines(text))
    # The strings stand as they came: only blanks between tokens are ours.
    assert repr(json.loads(text_of(lines))) == repr(json.loads(text))
    for cut in range(1, len(text)):
        assert list(json_lines(text[:cut], cut=True))


@given(NEARLY)
def test_what_counts_as_json_is_what_a_parser_takes(text: str) -> None:
    try:
        json.loads(text)
        valid = True
    except ValueError:
        valid = False
    try:
        list(json_lines(text))
        laid_out = True
    except ValueError:
        laid_out = False
    assert laid_out == valid


def test_numbers_stand_as_they_were_sent() -> None:
    value = b'{"a":1.10,"b":[],"c":{},"d":[12345678901234567890123,{"e":null}]}'
    assert shown(value, "json") == (
        '{\n  "a": 1.10,\n  "b": [],\n  "c": {},\n  "d": [\n    12345678901234567890123,\n    {\n      "e": null\n'
        "    }\n  ]\n}"
    )


@pytest.mark.parametrize(
    ("value", "expected", "in_ascii"),
    [
        (b"\x1b[31mred\x1b[0m", "␛[31mred␛[0m", "\\x1b[31mred\\x1b[0m"),
        (b"\x1b]0;title\x07", "␛]0;title␇", "\\x1b]0;title\\x07"),
        (b"[red]markup[/] [link=x]", "[red]markup[/] [link=x]", "[red]markup[/] [link=x]"),
        ("a\u202eb\u2066c\u200d".encode(), "a<U+202E>b<U+2066>c<U+200D>", "a\\u202eb\\u2066c\\u200d"),
        (b"nul\x00 del\x7f c1\xc2\x9b", "nul␀ del␡ c1<U+009B>", "nul\\x00 del\\x7f c1\\x9b"),
        (b"\xff\xfe \xe6\xbc", "\\xff\\xfe \\xe6\\xbc", "\\xff\\xfe \\xe6\\xbc"),
        (b"one\r\ntwo\tthree", "one␍\ntwo␉three", "one\\x0d\ntwo\\x09three"),
        ("漢\ufe0f".encode(), "漢<U+FE0F>", "\\u6f22\\ufe0f"),
    ],
)
def test_hostile_text_is_shown_as_symbols(value: bytes, expected: str, in_ascii: str) -> None:
    assert shown(value, "text") == expected
    assert shown(value, "text", ascii=True) == in_ascii


def test_symbols_stand_out_from_the_same_text() -> None:
    (line,) = preview(b"\xff\\xff", "text", width=40).lines
    assert line == (("\\xff", "bad"), ("\\xff", ""))


def test_wide_characters_are_not_cut_in_half() -> None:
    assert shown(("漢字" * 6).encode(), "text", width=21) == "漢字" * 5 + "\n漢字"
    assert plain(one_line("漢字漢字漢", 8)) == "漢字漢…"


def test_no_value_and_an_empty_one_are_told_apart() -> None:
    assert [shown(None, view) for view in VIEWS] == ["none: a tombstone"] * 3
    assert [shown(b"", view) for view in VIEWS] == ["empty: 0 bytes"] * 3


def test_what_is_not_json_is_shown_as_text_and_says_so() -> None:
    made = preview(b'{"a": 1,}', "json", width=40)
    assert (made.view, made.note) == ("text", "not JSON (character 8)")
    assert plain(made.lines[0]) == '{"a": 1,}'


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "value",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": "' + b"x" * 50_000_000 + b'"}', bytes(50_000_000), b"\n" * 50_000_000],
    ids=["brackets", "objects", "a-long-string", "zeros", "lines"],
)
def test_of_a_large_value_only_the_beginning_is_looked_at(value: bytes, view: str) -> None:
    tracemalloc.start()
    try:
        made = preview(value, view, width=80)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert 1 < len(made.lines) <= MOST_LINES
    assert f"the first {LIMIT >> 10}KiB of" in made.note
    assert all(cell_len(plain(line)) <= 80 for line in made.lines)


def test_a_value_of_which_only_the_beginning_was_read_says_how_large_it_is() -> None:
    made = preview(b'{"a": "\xc3\xa4\xc3', "json", width=40, size=1 << 20)
    # Half a character at the end is not an invalid byte.
    assert text_of(made.lines) == '{\n  "a": "ä'
    assert made.note == "the first 10B of 1MiB"
