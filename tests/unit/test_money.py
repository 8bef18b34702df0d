"""Money: by digits alone, to the last minor unit, in the currency's own digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import AMOUNT_MOST, format_amount, minor_digits, parse_amount

CURRENCIES = st.sampled_from(["CNY", "USD", "JPY", "KWD"])


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("19.99", "CNY", 1999),  # 19.99 * 100 is 1998.9999999999998 in floats
        ("0.29", "CNY", 29),
        ("1.1", "CNY", 110),
        ("7", "CNY", 700),
        ("007.00", "CNY", 700),
        ("500", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("0", "CNY", 0),
    ],
)
def test_an_amount_is_exact_to_the_last_digit(text: str, currency: str, minor: int) -> None:
    """Stops: cents by float, which charged 19.99 as 1998 in two shops of the field."""
    assert parse_amount(text, currency) == minor


@given(st.integers(min_value=0, max_value=10**12 - 1), CURRENCIES)
def test_an_amount_written_and_read_again_is_the_same(minor: int, currency: str) -> None:
    """Stops: a digit lost or moved between what is shown and what is charged."""
    shown, _, unit = format_amount(minor, currency).partition(" ")
    assert unit == currency
    assert parse_amount(shown, currency) == minor


@pytest.mark.parametrize(
    "text", ["", ".5", "5.", "-1", "+1", "1e2", "1,000.00", " 1", "1\n", "¥1", "١", "inf", "1_000"]
)
def test_what_is_no_plain_decimal_is_no_amount(text: str) -> None:
    """Stops: a generous number reader that takes 1e2 for a hundred or ignores a sign."""
    with pytest.raises(ValueError, match="is no amount"):
        parse_amount(text, "CNY")


@pytest.mark.parametrize(("text", "currency"), [("1.999", "CNY"), ("1.0", "JPY"), ("0.5", "KRW")])
def test_a_fraction_finer_than_the_currency_is_refused_not_rounded(text: str, currency: str) -> None:
    """Stops: rounding a price, and a yen with sen."""
    with pytest.raises(ValueError, match=f"finer than {currency}"):
        parse_amount(text, currency)


@pytest.mark.parametrize("currency", ["", "cny", "CN", "CNYX", "C1Y", "CNY\n", "ＣＮＹ"])
def test_a_currency_is_three_capital_letters(currency: str) -> None:
    """Stops: "cny" and "CNY" becoming two currencies of one order."""
    with pytest.raises(ValueError, match="no ISO 4217 currency"):
        minor_digits(currency)


def test_an_amount_stays_where_lua_counts_exactly() -> None:
    """Stops: a price so high that Lua's doubles, in the scripts, drop units of it."""
    assert float(AMOUNT_MOST) == AMOUNT_MOST
    assert AMOUNT_MOST < 2**53
