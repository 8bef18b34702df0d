"""The vault: a card key opens with its key, in its row, unaltered, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sale.delivery.vault import Vault, VaultLocked

VAULT = Vault(b"v" * 32)
ROW = (7 << 20) | 3
KEY = "GIFT-CARD-0001----p@ss 密码"


@given(st.integers(0, 2**63 - 1), st.text())
def test_what_was_sealed_opens_in_its_row(row_id: int, key: str) -> None:
    """Stops: keys that nobody can read again, e.g. because of their encoding."""
    assert VAULT.open(row_id, VAULT.seal(row_id, key)).reveal() == key


@given(st.data())
def test_a_seal_with_any_bit_flipped_does_not_open(data: st.DataObject) -> None:
    """Stops: an altered row that is delivered as something else."""
    sealed = bytearray(VAULT.seal(ROW, KEY))
    at = data.draw(st.integers(0, len(sealed) - 1), label="byte")
    sealed[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    with pytest.raises(VaultLocked):
        VAULT.open(ROW, bytes(sealed))


def test_a_seal_cut_anywhere_is_locked_and_nothing_else() -> None:
    """Stops: another exception for a short row, which would stand before every order read in the same batch."""
    sealed = VAULT.seal(ROW, KEY)
    for length in range(len(sealed)):
        with pytest.raises(VaultLocked):
            VAULT.open(ROW, sealed[:length])


def test_a_seal_copied_to_another_row_does_not_open_there() -> None:
    """Stops: a thief with write access who moves a dear key under his own cheap order."""
    with pytest.raises(VaultLocked, match=str(ROW + 1)):
        VAULT.open(ROW + 1, VAULT.seal(ROW, KEY))


def test_another_vault_key_opens_nothing_and_says_which_setting_is_wrong() -> None:
    """Stops: a lost or mistyped FLASHPROOF_VAULT_KEY that looks like broken data."""
    with pytest.raises(VaultLocked, match="FLASHPROOF_VAULT_KEY"):
        Vault(b"w" * 32).open(ROW, VAULT.seal(ROW, KEY))


def test_the_same_key_is_sealed_differently_every_time_and_shows_nothing() -> None:
    """Stops: a fixed nonce (equal keys would look equal, and GCM would break), or text left in clear."""
    seals = {VAULT.seal(ROW, KEY) for _ in range(200)}
    assert len({sealed[1:13] for sealed in seals}) == len(seals) == 200
    assert not any(b"GIFT" in sealed or KEY.encode() in sealed for sealed in seals)


def test_neither_an_opened_key_nor_the_error_shows_the_text() -> None:
    """Stops: a key in a log line, a traceback or an f-string."""
    assert f"{VAULT.open(ROW, VAULT.seal(ROW, KEY))}" == "***"
    with pytest.raises(VaultLocked) as caught:
        VAULT.open(ROW, VAULT.seal(ROW + 1, KEY))
    assert "GIFT" not in str(caught.value)
