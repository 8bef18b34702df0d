"""What every test may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from core.local.stores import LocalStores


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
