"""Fixtures of the service's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import served
from tests.service.served import Served, serve


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A service on an empty database, without a bundle, at noon in Moscow."""
    with serve(tmp_path) as served:
        yield served


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each engine in turn: whatever a test serves or opens in a folder is kept in a database of it."""
    if request.param == "postgresql":
        databases = served.PostgresDatabases(request.getfixturevalue("postgres"))
        monkeypatch.setattr(served, "database_in", databases.url)
        yield request.param
        databases.drop()
    else:
        yield request.param
