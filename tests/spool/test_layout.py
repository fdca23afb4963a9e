"""Names: only what is ours, byte for byte, is ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.spool import layout

sequences = st.integers(1, layout.U64_LIMIT - 1)
salts = st.integers(1, (1 << 32) - 1)


@given(sequences, salts)
@settings(deadline=None)
def test_names_come_back_and_sort_by_number(first: int, salt: int) -> None:
    assert layout.parse_name(layout.sealed_name(first)) == ("P", first)
    assert layout.parse_name(layout.unsealed_name(first)) == ("A", first)
    assert layout.parse_name(layout.prepared_name(salt)) == ("N", salt)
    assert (layout.sealed_name(first) < layout.sealed_name(9_000)) == (first < 9_000)


def test_names_are_fixed() -> None:
    assert layout.sealed_name(42) == "P00000000000000000042.seg"
    assert layout.unsealed_name(42) == "A00000000000000000042.seg"
    assert layout.prepared_name(0xBEEF) == "N0000beef.prep"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "head",
        "P42.seg",
        "P00000000000000000000.seg",
        "P09223372036854775808.seg",
        "P00000000000000000042.seg\n",
        "P00000000000000000042.seg.bak",
        "p00000000000000000042.seg",
        "X00000000000000000042.seg",
        "P0000000000000000004٢.seg",
        "P+0000000000000000042.seg",
        "../P00000000000000000042.seg",
        "N00000000.prep",
        "N0000BEEF.prep",
        "N0000beef.seg",
        "N00beef.prep",
    ],
)
def test_what_resembles_a_name_is_not_ours(name: str) -> None:
    assert layout.parse_name(name) is None


@given(st.text(max_size=30) | st.from_regex(r"[PAN][0-9a-f]{8,20}\.(seg|prep)"))
@settings(deadline=None)
def test_a_parsed_name_is_the_name_that_would_be_made(name: str) -> None:
    parsed = layout.parse_name(name)
    if parsed is not None:
        kind, number = parsed
        make = {"P": layout.sealed_name, "A": layout.unsealed_name, "N": layout.prepared_name}[kind]
        assert make(number) == name


@pytest.mark.parametrize("number", [0, -1, 1 << 63])
def test_numbers_out_of_range_get_no_name(number: int) -> None:
    for make in (layout.sealed_name, layout.unsealed_name, layout.prepared_name):
        with pytest.raises(ValueError, match="expected 1 to"):
            make(number)
