"""Names that are computed: the same for ever, never two things under one name, nothing guessed from another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import ORDER_ID_BYTES, Names, fingerprint, parse_order_id

NAMES = Names(b"s" * 32)
ORDER = NAMES.order_id("ann", "key-1")


def test_an_order_id_never_changes_between_releases() -> None:
    """Stops: a changed derivation, after which no retry finds its order and every token is foreign."""
    names = Names(bytes(range(32)))
    assert names.order_id("買い手 7", "k-1").hex() == "8ee4902c5ec850b82c3e38422fbfb86d"
    assert names.token(bytes(16), 1_800_000_000) == "6b49d200.a2cad5af25a6d16dca679b0fc4727cb2"
    assert names.key_hash("CARD-1").hex() == "90de7c0f58556cfeaaadbee9db56e7384c4f9848bb34d577847a4dc0ef90827e"
    assert fingerprint("HOT", 2) == "1753b0ac5a9413f2"


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_buyers_or_two_keys_never_share_an_order(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Stops: texts joined without their lengths, so that ("ab", "c") and ("a", "bc") are one order."""
    assert (NAMES.order_id(*one) == NAMES.order_id(*other)) == (one == other)
    assert NAMES.order_id("ab", "c") != NAMES.order_id("a", "bc")
    assert len(NAMES.order_id(*one)) == ORDER_ID_BYTES


def test_another_deployment_has_other_names_for_everything() -> None:
    """Stops: names that anyone can compute without the deployment's secret."""
    other = Names(b"t" * 32)
    assert other.order_id("ann", "key-1") != ORDER
    assert other.key_hash("CARD") != NAMES.key_hash("CARD")
    assert other.token_expiry(NAMES.token(ORDER, 1_800_000_000), ORDER) is None


@given(st.integers(min_value=2**28, max_value=2**39), st.binary(min_size=16, max_size=16))
def test_a_token_opens_its_own_order_until_the_instant_it_names(expires_s: int, order_id: bytes) -> None:
    """Stops: a token that another order accepts, or that says another expiry than it was made for."""
    token = NAMES.token(order_id, expires_s)
    assert NAMES.token_expiry(token, order_id) == expires_s
    assert NAMES.token_expiry(token, bytes([order_id[0] ^ 1]) + order_id[1:]) is None


@pytest.mark.parametrize("at", range(41))
def test_a_token_with_any_letter_changed_is_no_token(at: int) -> None:
    """Stops: a comparison that looks at part of the token; a later expiry written in by its bearer."""
    token = NAMES.token(ORDER, 1_800_000_000)
    assert len(token) == 41
    for letter in {"0", "a", "Z", ".", "\n"} - {token[at]}:
        assert NAMES.token_expiry(token[:at] + letter + token[at + 1 :], ORDER) is None


@pytest.mark.parametrize("odd", ["", ".", "x" * 41, "6b49d200.", "6b49d200." + "é" * 32, "6b49d200." + "a" * 32 + "\n"])
def test_what_is_no_token_at_all_is_refused_quietly(odd: str) -> None:
    """Stops: an exception, and so a 500, for an Authorization header that is garbage."""
    assert NAMES.token_expiry(odd, ORDER) is None


def test_a_short_secret_is_refused() -> None:
    """Stops: a deployment whose order ids can be found by trying secrets."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Names(b"x" * 31)


@given(st.text(max_size=8), st.integers(1, 100), st.text(max_size=8), st.integers(1, 100))
def test_a_fingerprint_tells_every_two_bodies_apart(sku: str, units: int, other: str, more: int) -> None:
    """Stops: a retry with another quantity or SKU that is taken for a replay: 1 of "1A" is not 11 of "A"."""
    assert (fingerprint(sku, units) == fingerprint(other, more)) == ((sku, units) == (other, more))
    assert fingerprint("1A", 1) != fingerprint("A", 11)


@given(st.binary(min_size=16, max_size=16))
def test_an_order_id_is_read_back_from_its_hex(order_id: bytes) -> None:
    """Stops: a reading that is not the inverse of the writing."""
    assert parse_order_id(order_id.hex()) == order_id


@pytest.mark.parametrize(
    "odd",
    ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "٠" * 32, "aa " * 10 + "aa", "\t".join(["aa"] * 11), "0" * 31 + "\n"],
)
def test_what_is_not_32_hex_digits_is_no_order_id(odd: str) -> None:
    """Stops: ``bytes.fromhex`` passing over blanks: an id of 11 bytes would shift every other id of its batch."""
    assert parse_order_id(odd) is None
