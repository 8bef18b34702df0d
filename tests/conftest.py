"""What every test may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from core.local.stores import LocalStores

# How long an example takes says something of the machine's other guests, and nothing of the example.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Refuse to run where a test has brought Locust into this process: it patches sockets, sleep and epoll for all."""
    if "locust" in sys.modules:
        raise pytest.UsageError("a test imports Locust; play its scenario in a process of its own instead")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStores]:
    """A real Valkey and a real PostgreSQL, as durable as the shop asks, started once for all tests."""
    local = LocalStores(tmp_path_factory.mktemp("stores"))
    try:
        local.start()
        yield local
    finally:
        local.remove()
