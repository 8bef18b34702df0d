"""How long a reply lay in the kernel before the generator read it: the kernel's own stamps, on one reply in sixteen.

While the generator is busy, replies that have arrived wait in their sockets, and that wait looks like the shop's.
Linux notes when it took each packet in (``SO_TIMESTAMPNS``, socket(7)) and tells it beside the bytes (recvmsg(2)). For
a reply in several pieces the stamp is that of the piece read last, the one its latency ends with. Both clocks are the
wall clock; where it stepped back in between, nothing was measured. Who gets no stamps measures nothing, and says so.

Cost: 1.5 µs for a reply that is looked at, none for the others; in the kernel some 50 ns a packet.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Final

EVERY: Final = 16  # one reply in so many is looked at
_TIMESTAMPNS: Final = 64  # SO_TIMESTAMPNS_NEW of Linux 5.1: two numbers of 64 bits on every processor
_STAMP: Final = struct.Struct("=qq")  # seconds since 1970, ns
_BESIDE_BYTES: Final = socket.CMSG_SPACE(_STAMP.size)


def ask_for_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what a socket receives, and return whether it will."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def receive(sock: socket.socket, bytes_most: int) -> tuple[bytes, int | None]:
    """Return what there is to read, and for how many µs it has lain there; None: the kernel does not say.

    Raises:
        OSError: as ``recv``.
    """
    data, beside, _, _ = sock.recvmsg(bytes_most, _BESIDE_BYTES)
    now_ns = time.time_ns()
    for level, kind, value in beside:
        if level == socket.SOL_SOCKET and kind == _TIMESTAMPNS and len(value) == _STAMP.size:
            seconds, ns = _STAMP.unpack(value)
            late_us = (now_ns - seconds * 1_000_000_000 - ns) // 1000
            return data, late_us if late_us >= 0 else None
    return data, None
