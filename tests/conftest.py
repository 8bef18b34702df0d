"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.local.stores import LocalStores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStores]:
    """A real Valkey and a real PostgreSQL, as durable as the shop asks, started once for all tests."""
    local = LocalStores(tmp_path_factory.mktemp("stores"))
    try:
        local.start()
        yield local
    finally:
        local.remove()
