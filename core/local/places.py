"""Where an embedded store lives: its private folder, its socket, and the account that may run it.

Three facts of the world shape this page. PostgreSQL refuses to run as root, so root runs it as `nobody`, and
then every folder above its data must let `nobody` pass. A unix socket's path has room for about a hundred
bytes. And a folder that is not ours is never changed: where the wanted place does not serve, another is made.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import UnfitStore

SOCKET_BYTES_MOST: Final = 100  # sun_path has 108 bytes on Linux and 104 on macOS, with a closing zero
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/-]+")  # lists of sockets and hosts are split at commas, so: nothing odd
_ROOMS: Final = ("/var/tmp", "/tmp")  # noqa: S108 - sticky by convention, and only folders made 0700 are used there


class Account(NamedTuple):
    """Whom a server runs as."""

    uid: int
    gid: int


def powerless() -> Account | None:
    """Return the account root lends to a server that refuses to be root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Tell whether `account` (None: we ourselves) may pass every folder down to and including `path`."""
    if account is None:
        return True
    return all(_may_pass(folder, account) for folder in (path, *path.parents) if folder.is_dir())


def private_home(directory: Path, name: str, account: Account | None) -> Path:
    """Make and return the folder of one store: `directory/name`, 0700, owned by the account that runs it.

    Where that account could not reach it (root's own home, pytest's folders), the folder is made in a public
    temporary room instead, and `directory/name` becomes a link that shows where.

    Raises:
        UnfitStore: the folder cannot be made, belongs to somebody else, or no room can be used.
    """
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise UnfitStore(f"{directory} cannot hold the stores: {error.strerror}") from error
    wanted = directory / name
    if wanted.is_symlink():
        return _private(wanted.readlink(), account)
    if reachable(directory, account):
        return _private(wanted, account)
    away = _private(_room(account) / f"flashproof-{name}-{_digest(wanted)}", account)
    wanted.symlink_to(away)
    return away


def socket_folder(home: Path, socket_name: str, account: Account | None) -> Path:
    """Make and return the folder for a socket: `home` when short and plain, else a private short one.

    Raises:
        UnfitStore: as `private_home`.
    """
    path = str(home / socket_name)
    if len(os.fsencode(path)) <= SOCKET_BYTES_MOST and _PLAIN.fullmatch(path):
        return home
    return _private(_room(account) / f"flashproof-{_digest(home)}", account)


def discard(directory: Path, name: str, *folders: Path) -> None:
    """Remove the folders of one store, and the link that pointed at them."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    link = directory.absolute() / name
    if link.is_symlink():
        link.unlink()


def _may_pass(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _private(folder: Path, account: Account | None) -> Path:
    """Make the folder if it is missing, and check that nobody but its account can put anything into it."""
    owner = account or Account(os.geteuid(), os.getegid())
    try:
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, *account)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner.uid or status.st_mode & 0o022:
            raise UnfitStore(
                f"{folder} is in the way: it must be a folder of uid {owner.uid} that nobody else can write. "
                "Move it away, or choose another directory"
            ) from None
    return folder


def _room(account: Account | None) -> Path:
    """Return everybody's temporary folder; first one that outlives a reboot, for data may go there."""
    for room in map(Path, (*_ROOMS, tempfile.gettempdir())):
        if room.is_dir() and os.access(room, os.W_OK | os.X_OK) and reachable(room, account):
            return room
    raise UnfitStore("no temporary folder can be reached by the account that runs PostgreSQL; set TMPDIR")


def _digest(path: Path) -> str:
    return hashlib.sha256(f"{os.geteuid()}:{path}".encode(errors="surrogateescape")).hexdigest()[:16]
