"""The vault: card keys at rest are AES-256-GCM, bound to their row, opened only to be delivered.

The key comes from the environment, never from the database. The associated data is the row's id, so a sealed key that
is copied to another row does not open there. Layout: version (1 byte) · nonce (12) · ciphertext and tag (16).
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import Fault
from core.telemetry import Secret

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12  # random nonces: NIST SP 800-38D allows 2^32 seals under one key
_LABEL: Final = b"flashproof card key\0"


class VaultLocked(Fault):
    """A card key does not open: FLASHPROOF_VAULT_KEY is not the one it was sealed with, or the row was altered."""

    code = "vault_locked"


class Vault:
    """Seals and opens card keys."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        """Take the AES-256 key (32 bytes)."""
        self._cipher = AESGCM(key)

    def seal(self, row_id: int, card_key: str) -> bytes:
        """Return a card key sealed for one row."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, card_key.encode(), _LABEL + row_id.to_bytes(8, "big"))
        return _VERSION + nonce + sealed

    def open(self, row_id: int, sealed: bytes) -> Secret:
        """Return the card key of one row.

        Raises:
            VaultLocked: wrong vault key, another row's seal, or altered bytes.
        """
        if sealed[:1] != _VERSION:
            raise VaultLocked(f"card key row {row_id} was sealed by an unknown version")
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return Secret(self._cipher.decrypt(nonce, rest, _LABEL + row_id.to_bytes(8, "big")).decode())
        except (InvalidTag, ValueError) as error:  # ValueError: cut so short that no whole nonce is left
            raise VaultLocked(f"card key row {row_id}: " + VaultLocked.message()) from error
