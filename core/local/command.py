"""`flashproof local`: both stores on this machine, in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from core.arguments import Arguments
from core.errors import BadInput, Fault
from core.local.restarts import Restarts
from core.local.stores import LocalStores
from core.settings import variable

_HELP: Final = """\
Start a real Valkey 9 and a real PostgreSQL 18 from the installed wheels, on unix sockets, for this machine
alone. They stay in the foreground until Ctrl-C; the data stays in the directory, and the next start finds it.
A store that dies is started again, ten times a minute at most.

The first start also makes the deployment's secrets. Keep the directory: without its vault key no card key in
the database can be read again. These stores are for a laptop, tests and CI. For a real shop point
FLASHPROOF_VALKEY_URL and FLASHPROOF_POSTGRES_DSN at real servers; nothing else changes."""

_READY: Final = """\
Valkey and PostgreSQL are ready. In another terminal:

    . {env}
    flashproof migrate
    flashproof serve        # buyers' HTTP
    flashproof work         # projector, delivery, expiries

Logs: {valkey_log}
      {postgres_log}
Ctrl-C stops both; the data stays in {directory}.
"""

_LOOK_S: Final = 0.2


class Secrets(msgspec.Struct, frozen=True):
    """What only this deployment knows; base64 of 32 random bytes each, as the settings want them."""

    secret: str
    vault_key: str
    sandbox_secret: str


def main(argv: list[str]) -> int:
    """Run both stores until SIGINT or SIGTERM; return 0.

    Raises:
        BadInput: a wheel is missing, or the directory's secrets cannot be read.
        Fault: a store cannot be started, is run by another process, or keeps dying.
    """
    parser = Arguments(prog="flashproof local", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(".local"),
        help="where data, logs and secrets are kept (default: .local)",
    )
    directory: Path = parser.parse_args(argv).dir
    stop = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: stop.set())
    with LocalStores(directory) as stores:
        env = write_environment(stores, keep_secrets(directory))
        print(
            _READY.format(
                env=shlex.quote(str(env)),
                valkey_log=stores.valkey.log_file,
                postgres_log=stores.postgres.log_file,
                directory=directory,
            ),
            flush=True,
        )
        watch(stores, stop, Restarts())
        print("stopping ...", flush=True)
    return 0


def watch(stores: LocalStores, stop: threading.Event, restarts: Restarts) -> None:
    """Bring back a store that died, until `stop` is set.

    Raises:
        UnfitStore: a store cannot be started again. Fault: the budget of restarts is spent.
    """
    while not stop.wait(_LOOK_S):
        for server in stores.servers:
            if server.is_running():
                continue
            died = f"{server.name} ended with exit code {server.exit_code}"
            if not restarts.allow(time.monotonic()):
                raise Fault(
                    f"{died}; {restarts.most} restarts in {restarts.within_s:.0f} s did not help. See {server.log_file}"
                )
            print(f"{died}; starting it again", file=sys.stderr, flush=True)
            server.start()
            print(f"{server.name} is back", file=sys.stderr, flush=True)


def keep_secrets(directory: Path) -> Secrets:
    """Return the deployment's secrets, made on the first call and kept in `directory/secrets.json` (0600).

    Raises:
        BadInput: the file is there but is not what was written; it is never replaced.
    """
    path = directory / "secrets.json"
    if not path.exists():
        fresh = Secrets(*(base64.b64encode(secrets.token_bytes(32)).decode() for _ in Secrets.__struct_fields__))
        _write_private(path, msgspec.json.format(msgspec.json.encode(fresh)) + b"\n")
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Secrets)
        sizes = [len(base64.b64decode(getattr(kept, field), validate=True)) for field in kept.__struct_fields__]
    except (msgspec.MsgspecError, binascii.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); put the right file back") from error
    if any(size != 32 for size in sizes):
        raise BadInput(f"{path} must hold base64 of 32 bytes each; put the right file back")
    return kept


def write_environment(stores: LocalStores, kept: Secrets) -> Path:
    """Write `env` (0600) into the stores' directory, for `. .local/env` in a shell, and return its path."""
    values = {
        "valkey_url": stores.valkey_url,
        "postgres_dsn": stores.postgres_dsn,
        **msgspec.structs.asdict(kept),
    }
    lines = [f"export {variable(field)}={shlex.quote(value)}\n" for field, value in values.items()]
    path = stores.directory / "env"
    _write_private(path, "".join(lines).encode())
    return path


def _write_private(path: Path, content: bytes) -> None:
    """Put a file that only we can read in place, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    draft.replace(path)
