"""One client has so many connections and no more, whoever is trusted has any number, and who leaves is forgotten."""

from __future__ import annotations

import pytest

from core.settings import Settings, networks
from core.web.addresses import Addresses, client_of

DEFAULT = networks(Settings(valkey_url="", postgres_dsn="", secret=b"", vault_key=b"").trusted_networks)


def test_the_cap_is_for_each_client_and_what_is_closed_counts_no_more() -> None:
    """Stops: a cap for all together; places that are lost with every connection."""
    addresses = Addresses(3, ())
    assert [addresses.enter("198.51.100.1") for _ in range(5)] == [True, True, True, False, False]
    assert addresses.enter("198.51.100.2")
    assert addresses.open == 4
    addresses.leave("198.51.100.1")
    assert [addresses.enter("198.51.100.1") for _ in range(2)] == [True, False]
    for _ in range(3):
        addresses.leave("198.51.100.1")
    addresses.leave("198.51.100.2")
    assert addresses.open == 0
    assert not addresses._counts


@pytest.mark.parametrize(
    "balancer", ["127.0.0.1", "::1", "10.1.2.3", "172.17.0.1", "192.168.0.9", "fd00::1", "::ffff:10.0.0.1"]
)
def test_by_default_a_balancer_of_ones_own_has_any_number(balancer: str) -> None:
    """Stops: all buyers behind a balancer refused in the minute of the sale."""
    addresses = Addresses(2, DEFAULT)
    assert all(addresses.enter(balancer) for _ in range(100))


@pytest.mark.parametrize("stranger", ["203.0.113.7", "2001:db8::7", "172.32.0.1", "::ffff:203.0.113.7", "100.64.0.1"])
def test_by_default_a_stranger_is_capped(stranger: str) -> None:
    """Stops: a range of trust wider than it is meant."""
    addresses = Addresses(2, DEFAULT)
    assert [addresses.enter(stranger) for _ in range(3)] == [True, True, False]


def test_no_cap_is_no_cap() -> None:
    """Stops: 0 taken for "none at all"."""
    assert all(Addresses(0, ()).enter("203.0.113.7") for _ in range(3))


def test_a_client_of_ipv6_is_its_network() -> None:
    """Stops: a cap that one customer gets around with 2**64 addresses; one cap for the two words for an address."""
    assert client_of("2001:db8:0:1::1") == client_of("2001:db8:0:1:ffff::2") != client_of("2001:db8:0:2::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")
    assert client_of("::ffff:203.0.113.7") == client_of("203.0.113.7") == "203.0.113.7"
