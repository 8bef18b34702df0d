"""How many connections each client address has open, and whether it may have one more.

Why a cap: every other limit is on one connection, and one machine can open tens of thousands. With a cap it takes many
addresses to fill a worker, and the deadlines empty it again.

Why not for everybody: behind a balancer every buyer has the balancer's address, and a cap there would refuse honest
buyers in the very minute the shop was built for. So addresses of trusted networks are not capped. By default these
are loopback and the private ranges, where balancers, container gateways and one's own load tests stand; the balancer
has to keep its own limit for each client. ``X-Forwarded-For`` cannot help: here nothing has been read yet.

The count is a worker's own. A common one would need a lock or a shared table at every accept; the kernel spreads
connections over the workers, so an address gets about the cap times the workers in all.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Final

from core.settings import Network

_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 address in an IPv6 socket's words


class Addresses:
    """Counts open connections by who has them."""

    def __init__(self, most: int, trusted: tuple[Network, ...]) -> None:
        """``most`` for one address, 0 for no cap; ``trusted`` networks are never capped."""
        self._most, self._trusted = most, trusted
        self._counts: dict[str, int] = {}
        self.open = 0  # of everybody

    def enter(self, address: str) -> bool:
        """Count one more connection of an address, or say that it has enough."""
        whose = client_of(address)
        count = self._counts.get(whose, 0)
        # The networks are asked last: only who has reached the cap is worth the look.
        if 0 < self._most <= count and not self._is_trusted(address):
            return False
        self._counts[whose] = count + 1
        self.open += 1
        return True

    def leave(self, address: str) -> None:
        """One connection of an address, counted before, has ended."""
        whose = client_of(address)
        self.open -= 1
        count = self._counts[whose] - 1
        if count:
            self._counts[whose] = count
        else:
            del self._counts[whose]

    def _is_trusted(self, address: str) -> bool:
        found = ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._trusted)


def client_of(address: str) -> str:
    """Return who is behind an address: itself, and of IPv6 its /64, for that is what one customer is given."""
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8].hex()
