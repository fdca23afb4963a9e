"""Sizes and times as text: what is written parses back, and what is wrong is refused by name."""

from __future__ import annotations

import decimal
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.errors import ConfigurationError
from mbframework.units import (
    MAX_SIZE,
    MAX_TIME,
    GiB,
    KiB,
    MiB,
    format_size,
    format_time,
    parse_number,
    parse_size,
    parse_time,
    quoted,
)

SIZES = st.integers(0, MAX_SIZE)
TIMES = st.floats(0, MAX_TIME)


@given(SIZES)
def test_an_exact_size_parses_back(size: int) -> None:
    assert parse_size(format_size(size, exact=True)) == size


@given(st.integers(1, 8 * KiB), st.sampled_from([1, 10**3, 10**6, 10**9, KiB, MiB, GiB]))
def test_an_exact_size_of_round_units_parses_back_and_is_short(count: int, unit: int) -> None:
    text = format_size(count * unit, exact=True)
    assert parse_size(text) == count * unit
    assert len(text) <= len(f"{count * unit}B")


@given(st.integers(0, MAX_SIZE // 2))
def test_a_size_for_people_is_short_and_close(size: int) -> None:
    text = format_size(size)
    assert len(text) <= len("1023.9KiB") or size >= 1 << 50
    assert parse_size(text) == pytest.approx(size, rel=0.05, abs=0)


@given(TIMES)
def test_an_exact_time_parses_back(seconds: float) -> None:
    assert parse_time(format_time(seconds, exact=True)) == seconds


@given(st.integers(0, 10**9).map(float))
def test_an_exact_time_of_whole_seconds_has_no_fraction(seconds: float) -> None:
    text = format_time(seconds, exact=True)
    assert "." not in text
    assert parse_time(text) == seconds


@given(st.floats(1e-6, MAX_TIME - 86_400))
def test_a_time_for_people_is_close_and_has_two_units_at_most(seconds: float) -> None:
    text = format_time(seconds)
    assert sum(not before.isalpha() and after.isalpha() for before, after in itertools.pairwise(text)) <= 2
    assert parse_time(text) == pytest.approx(seconds, rel=0.06)


@pytest.mark.parametrize(
    "text, size",
    [
        ("64MiB", 67_108_864),
        ("64MB", 64_000_000),
        ("1.1GB", 1_100_000_000),
        ("1.1GiB", 1_181_116_006),
        ("0.5kB", 500),
        (" 64 mib ", 67_108_864),
        ("512", 512),
        ("512B", 512),
        (65_536, 65_536),
        (1e6, 1_000_000),
        ("0", 0),
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("2h", 7_200.0),
        ("7d", 604_800.0),
        ("1h30m", 5_400.0),
        ("1h 30m", 5_400.0),
        ("1h0m0.5s", 3_600.5),  # as Go prints a duration
        ("1.5h", 5_400.0),
        ("100µs", 0.0001),
        ("100us", 0.0001),
        ("5ns", 5e-9),
        ("0.25", 0.25),
        (0.25, 0.25),
        (3, 3.0),
    ],
)
def test_times(text: str | float, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "MiB",
        "-1",
        "1e9",
        "inf",
        "nan",
        "64XB",
        "1.5",
        "1.5B",
        "1_000",
        "٣",
        True,
        -1,
        1.5,
        None,
        [],
        b"64MiB",
        float("nan"),
        float("inf"),
        MAX_SIZE + 1,
        "8388608TiB",
    ],
)
def test_a_wrong_size_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^total_size: .*(expected|unknown unit)") as caught:
        parse_size(value, name="total_size")  # type: ignore[arg-type]
    assert caught.value.option == "total_size"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "-1s",
        "10x",
        "1h30",
        "30m1h",
        "1h1h",
        "1e3s",
        "inf",
        "1.5.5s",
        "10 s s",
        True,
        -0.5,
        None,
        {},
        float("nan"),
        float("-inf"),
        1e300,
        "300y",
        "110000d",
    ],
)
def test_a_wrong_time_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^linger: .*expected") as caught:
        parse_time(value, name="linger")  # type: ignore[arg-type]
    assert caught.value.option == "linger"


def test_a_bare_letter_is_refused_with_both_readings() -> None:
    with pytest.raises(ConfigurationError, match=r"'64MB' \(decimal\) or '64MiB' \(binary\)"):
        parse_size("64M")


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused_as_a_configuration_error(text: str) -> None:
    for parse in (parse_size, parse_time):
        try:
            parsed = parse(text)
        except ConfigurationError:
            continue
        assert parsed >= 0


def test_the_thread_s_decimal_precision_does_not_matter() -> None:
    with decimal.localcontext() as context:
        context.prec = 3
        assert parse_size("1234567891") == 1_234_567_891
        assert parse_time(format_time(1234.56789, exact=True)) == 1234.56789


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0s"),
        (0.00025, "250us"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (3.25, "3.2s"),
        (59.96, "1m"),
        (90, "1m30s"),
        (3599.9, "1h"),
        (5400, "1h30m"),
        (86399, "1d"),
        (187200, "2d4h"),
        (-90, "-1m30s"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    "size, text",
    [(0, "0B"), (1_023, "1023B"), (KiB, "1KiB"), (MiB - 1, "1MiB"), (123_456_789, "117.7MiB"), (-2 * MiB, "-2MiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_numbers() -> None:
    assert parse_number("2.5", name="rate", expected="expected a rate") == 2.5
    assert parse_number(7, name="rate", expected="expected a rate") == 7.0
    with pytest.raises(ConfigurationError, match=r"^rate: 'fast': expected a rate"):
        parse_number("fast", name="rate", expected="expected a rate")


def test_what_may_hold_a_password_is_not_quoted() -> None:
    for value in ("kafka://user:hunter2@host", ["kafka://user:hunter2@host"], {"password": "hunter2"}):
        assert "hunter2" not in quoted(value)
    assert len(quoted("x" * 10_000)) < 100
