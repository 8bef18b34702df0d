"""Money is a whole number of minor units and an ISO 4217 currency. There is no float in this house."""

from __future__ import annotations

import re

# ISO 4217 currencies whose minor unit is not a hundredth; every other one has two digits.
_DIGITS = dict.fromkeys(
    [
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ],
    0,
) | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)
_CURRENCY = re.compile(r"[A-Z]{3}")
_DECIMAL = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?")
# Lua counts in doubles: whole numbers are exact up to 2**53. One order's amount stays far below it.
AMOUNT_MOST = 10**15


def minor_digits(currency: str) -> int:
    """Return how many digits the minor unit of an ISO 4217 currency has (2 for CNY, 0 for JPY).

    Raises:
        ValueError: not three capital letters.
    """
    if not _CURRENCY.fullmatch(currency):
        raise ValueError(f"{currency!r} is no ISO 4217 currency; write three capital letters, e.g. CNY")
    return _DIGITS.get(currency, 2)


def parse_amount(text: str, currency: str) -> int:
    """Return a decimal text such as ``19.99`` as minor units (1999), by digits alone.

    Raises:
        ValueError: not a plain decimal, or finer than the currency's minor unit.
    """
    digits = minor_digits(currency)
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no amount; write it like 19.99")
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > digits:
        raise ValueError(f"{text!r} is finer than {currency} allows ({digits} digits)")
    minor: int = int(whole) * 10**digits + int(fraction.ljust(digits, "0") or "0")
    return minor


def format_amount(minor: int, currency: str) -> str:
    """Return minor units as a decimal text with the currency, e.g. ``19.99 CNY``."""
    digits = minor_digits(currency)
    if not digits:
        return f"{minor} {currency}"
    return f"{minor // 10**digits}.{minor % 10**digits:0{digits}d} {currency}"
