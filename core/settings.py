"""Every setting and every limit, each with its reason, read once from ``FLASHPROOF_*`` and checked at boot."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

import msgspec

from core.errors import BadSetting
from core.facts import BUYER_BYTES_MOST

# --- limits: constants of the design, not knobs --------------------------------------------------------------

BATCH_MOST: Final = 1_000  # items in one script call; Lua's unpack ends near 8,000 values, XADD takes two an item
WAITING_MOST: Final = 4_000  # items a worker keeps waiting for their batch; beyond it: 503
ORDERS_LEAST: Final = (
    128  # the limit of orders under way on a worker never falls below this; see core/backends/limit.py
)
REQUEST_DEADLINE_S: Final = 1.0  # what waited so long for its batch is not sent any more: surely not executed
REFUSED_AN_ORDER: Final = 0.25  # refusals for overload a busy worker tells for each order: a tenth of its time
REFUSED_PER_S_LEAST: Final = 1_000  # and these in any case
RETRY_AFTER_MOST_S: Final = 600  # who is sent away for longer will not come back; see core/backends/line.py
BODY_MOST: Final = 4_096  # bytes of an order or a callback; the largest honest one is under 1,000
KEEPALIVE_S: Final = 75.0  # an idle connection is closed after that
FIRST_BYTE_DEADLINE_S: Final = 9.0  # a new connection on which nothing comes; browsers open some in advance
# A lost packet is sent again after 1, 2 and 4 s (RFC 6298): three losses in a head or an answer are no attack.
HEAD_DEADLINE_S: Final = 8.0  # from the first byte of a request to the end of its head
HEAD_MOST: Final = 16_384  # bytes of a head that comes in pieces; an honest one has under 1,000, with cookies 8,000
BODY_DEADLINE_S: Final = 7.5  # a body not whole by then is cut off
LINGER_S: Final = 2.0  # a body nobody wants is read so long, that its sender may read why
ANSWER_DEADLINE_S: Final = 8.5  # an answer the client has not read into the kernel's buffers by then is cut off
UNACKNOWLEDGED_MOST_S: Final = 9.0  # the same in the kernel, for what its own buffers still hold
# Bytes the kernel keeps of answers not read, a connection; it takes twice that. An answer of an order has 500. With
# four times this it took two of 43 KB for who asks eight times and reads nothing, and the server made a third.
SEND_BUFFER: Final = 16_384
RECEIVE_BUFFER: Final = 32_768  # bytes the kernel keeps of requests not read yet; one read is twice that at most
BUYER_CHARS_MOST: Final = 128
IDEMPOTENCY_KEY_CHARS_MOST: Final = 128
EVENT_ID_CHARS_MOST: Final = 128
QUANTITY_MOST: Final = 100  # units in one order, whatever the product allows
CONNECTIONS_MOST: Final = 50_000  # open at once on one worker; beyond it they wait in the kernel's queue
FILES_KEPT: Final = 256  # of a worker's open files, for its stores, gateways and logs
WAIT_MOST_S: Final = 30.0  # a long poll ends by itself
WAITERS_MOST: Final = 50_000  # long polls one worker holds
REST_MS: Final = 45  # what comes back to a sold-out SKU is sold again after that; so long workers refuse from memory
IDS_KEPT_S: Final = 3 * 86_400  # names of orders outlast two generations; place.lua has the same figure
KNOWN_ORDERS_MOST: Final = 200_000  # names of orders a worker keeps for one sold-out SKU; beyond it Valkey is asked
SKUS_REMEMBERED_MOST: Final = 1_000  # sold-out SKUs a worker remembers at once
PAGE_MOST: Final = 500  # products in one answer
KEY_LINES_MOST: Final = 1_000_000  # lines of one key file; below 2**20, the room of a line in a key's id
KEY_BYTES_MOST: Final = 1_024  # bytes of one card key
CALLBACK_TOLERANCE_S: Final = 300  # age of a signed callback
PROJECT_ENTRIES_MOST: Final = 64  # stream entries looked at together when a projector begins
# Records in one projected transaction, unless one entry holds more. Larger ones cost no less an order, and a worker
# cannot wake all their buyers at once: 4,000 made the last of them wait 500 ms, 500 make it 100.
PROJECT_RECORDS_MOST: Final = 500
EXPIRE_MOST: Final = 500  # reservations released by one script call
PRODUCTS_MOST: Final = 100_000  # SKUs of one shop
STORE_TIMEOUT_S: Final = 2.0  # a store's answer after that is unknown
CONNECT_TIMEOUT_S: Final = 1.0
# Where processes share cores, what a buyer waits for goes first: the projector and an embedded PostgreSQL step back.
# They still get a third of a contended core, and catch up when the flood is over.
NICENESS: Final = 5
DRAIN_MOST_S: Final = 10.0  # how long a stopping worker waits for its last answers
TOKEN_LIFE_S: Final = 30 * 86_400  # an order's token outlives its pay_by by this


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment. Field ``x`` is read from ``FLASHPROOF_X``."""

    valkey_url: str
    postgres_dsn: str
    secret: bytes  # 32+ bytes: order ids, tokens, keyed hashes
    vault_key: bytes  # 32 bytes: AES-256 for card keys at rest
    sandbox_secret: bytes = b""  # signs the sandbox gateway's callbacks; empty: no sandbox
    sandbox_url: str = ""  # where the sandbox gateway can be asked about a charge; empty: it cannot
    pay_url: str = "/pay/"  # what an order's pay_url begins with
    host: str = "127.0.0.1"
    port: int = 8080
    ops_host: str = "127.0.0.1"
    ops_port: int = 8081
    work_ops_port: int = 8082
    log_level: str = "info"
    lane: str = "on"  # off: every request goes through aiohttp, to compare
    # A whole school behind one address opens a few hundred; a worker holds 50,000. See core/web/addresses.py.
    connections_per_address: int = 2_000  # open at once on one worker; 0: no cap
    trusted_networks: str = "127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"  # never capped


Network = IPv4Network | IPv6Network

_BYTES: Final = {"secret", "vault_key", "sandbox_secret"}
_NUMBERS: Final = {  # with the largest that makes sense
    "port": 65_535,
    "ops_port": 65_535,
    "work_ops_port": 65_535,
    "connections_per_address": CONNECTIONS_MOST,
}
_WORDS: Final = {
    "valkey_url": "e.g. unix:///run/valkey.sock or redis://host:6379/0",
    "postgres_dsn": "e.g. postgresql://flashproof@host/flashproof",
    "secret": "base64 of 32 random bytes: `openssl rand -base64 32`",
    "vault_key": "base64 of 32 random bytes: `openssl rand -base64 32`; losing it loses every unsold card key",
}


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return "FLASHPROOF_" + field.upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Raises:
        BadSetting: one is missing or wrong; the message names the variable and what to write.
    """
    env = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for field in Settings.__struct_fields__:
        raw = env.get(variable(field))
        if raw is None or not raw.strip():
            if field in _WORDS:
                raise BadSetting(
                    f"{variable(field)} is not set ({_WORDS[field]}). "
                    "On a laptop, `flashproof local` prints all that is needed."
                )
            continue
        values[field] = _parse(field, raw.strip())
    settings = Settings(**values)  # type: ignore[arg-type]  # each field was parsed to its own type above
    _check(settings)
    return settings


def _parse(field: str, raw: str) -> object:
    if field in _BYTES:
        try:
            return base64.b64decode(raw, validate=True)
        except ValueError as error:  # also what is not ASCII
            raise BadSetting(f"{variable(field)} is not base64: {error}") from error
    if field in _NUMBERS:
        most = _NUMBERS[field]
        if not (raw.isascii() and raw.isdigit()) or not 0 <= int(raw) <= most:
            what = "port" if field.endswith("port") else "number"
            raise BadSetting(f"{variable(field)} must be a {what} from 0 to {most}, not {raw!r}")
        return int(raw)
    return raw


def _check(settings: Settings) -> None:
    """Settings check each other; a limit that contradicts another is caught here, not under load."""
    if len(settings.secret) < 32:
        raise BadSetting(f"{variable('secret')} must hold at least 32 bytes")
    if len(settings.vault_key) != 32:
        raise BadSetting(f"{variable('vault_key')} must hold exactly 32 bytes (AES-256)")
    if settings.sandbox_secret and len(settings.sandbox_secret) < 16:
        raise BadSetting(f"{variable('sandbox_secret')} must hold at least 16 bytes")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise BadSetting(f"{variable('log_level')} must be debug, info, warning or error")
    if settings.lane not in ("on", "off"):
        raise BadSetting(f"{variable('lane')} must be on or off")
    networks(settings.trusted_networks)
    if not settings.valkey_url.startswith(("unix://", "redis://", "rediss://")):
        raise BadSetting(f"{variable('valkey_url')} must begin with unix://, redis:// or rediss://")
    if not settings.postgres_dsn.startswith(("postgresql://", "postgres://")):
        raise BadSetting(f"{variable('postgres_dsn')} must begin with postgresql://")
    assert KEY_LINES_MOST < 2**20, "a line number must fit its place in a key's id"
    assert 4 * BUYER_CHARS_MOST <= BUYER_BYTES_MOST, "the journal's frames"
    assert 2 * BATCH_MOST < 7_000 and 2 * EXPIRE_MOST < 7_000, "Lua's unpack"
    assert WAITING_MOST >= BATCH_MOST and ORDERS_LEAST < WAITING_MOST
    assert max(HEAD_DEADLINE_S, BODY_DEADLINE_S + LINGER_S, ANSWER_DEADLINE_S, FIRST_BYTE_DEADLINE_S) < 10
    assert UNACKNOWLEDGED_MOST_S < 9.5, "the kernel counts from its first probe of a full window"
    assert ANSWER_DEADLINE_S < UNACKNOWLEDGED_MOST_S, "who can be told the end of a connection is told it"
    assert HEAD_MOST + BODY_MOST <= RECEIVE_BUFFER


def networks(said: str) -> tuple[Network, ...]:
    """Return the networks of the setting ``trusted_networks``: parted by blanks or commas; ``none`` stands for none.

    Raises:
        BadSetting: a word is no network.
    """
    try:
        return tuple(ip_network(word) for word in said.replace(",", " ").split() if said.strip() != "none")
    except ValueError as error:
        raise BadSetting(
            f"{variable('trusted_networks')} takes networks such as 10.0.0.0/8, or none: {error}"
        ) from error


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make ``load`` give these settings (for child processes)."""
    env: dict[str, str] = {}
    for field in Settings.__struct_fields__:
        value = getattr(settings, field)
        env[variable(field)] = base64.b64encode(value).decode() if field in _BYTES else str(value)
    return env
