"""Fixtures of the service's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.served import Served, serve


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A service on an empty database, without a bundle, at noon in Moscow."""
    with serve(tmp_path) as served:
        yield served
