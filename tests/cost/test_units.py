"""Numbers with a unit letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.cost.units import format_amount, parse_amount, write_amount
from tenfold.errors import UsageError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50M", 50_000_000),
        ("300k", 300_000),
        ("300K", 300_000),
        ("1.2e9", 1_200_000_000),
        ("1.814073344G", 1_814_073_344),
        (" 2 T ", 2 * 10**12),
        ("50_000", 50_000),
        (".5k", 500),
        ("8.5", 8.5),
    ],
)
def test_amounts_are_read_exactly(text, amount):
    read = parse_amount(text)
    assert read == amount
    assert type(read) is type(amount)


@pytest.mark.parametrize("text", ["", "M", "fifty", "1.2.3M", "nan", "inf", "0x10", "5 0M", "5__0", "1e9999"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(UsageError, match=r"is not a number such as 50M, 300k, 1.2e9 or 8.5"):
        parse_amount(text)


@pytest.mark.parametrize("text", ["0", "-5M", "0.0k", "1e31", "1e999"])
def test_what_is_not_above_zero_or_absurd_is_refused(text):
    with pytest.raises(UsageError, match="out of range; an amount lies above 0 and is at most 1e30"):
        parse_amount(text)


def test_an_unknown_unit_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"unknown unit 'm'; allowed are k, M, G and T. Did you mean 50M\?"):
        parse_amount("50m")
    with pytest.raises(UsageError, match=r"unknown unit 'kB'; allowed are k, M, G and T.$"):
        parse_amount("300kB")


@given(st.one_of(st.integers(1, 10**30), st.floats(1e-6, 1e29)))
def test_a_written_amount_is_read_back_exactly(amount):
    assert parse_amount(write_amount(amount)) == amount


def test_a_written_amount_is_short_and_exact():
    assert write_amount(50_000_000) == "50M"
    assert write_amount(15_500_000) == "15.5M"
    assert write_amount(1_814_073_344) == "1814073344"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_499, "999 k"),
        (999_999, "1.00 M"),
        (1_814_073_344, "1.81 G"),
        (46_719_648, "46.7 M"),
        (8.5, "8.50"),
        (0.0123, "0.0123"),
        (-1_500, "-1.50 k"),
        (2.5e15, "2500 T"),
    ],
)
def test_numbers_are_formatted_for_people(amount, text):
    assert format_amount(amount) == text


def test_a_formatted_number_carries_its_unit():
    assert format_amount(46_719_648, "B") == "46.7 MB"
    assert format_amount(512, "B") == "512 B"
    assert format_amount(1_814_073_344, digits=2) == "1.8 G"
