"""Fixtures of the tests of experiments."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.experiments.shop import Shop, run_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop's log, which no test changes."""
    return run_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def own_shop(shop: Shop, tmp_path: Path) -> Shop:
    """A copy of the shop's log, for tests that change it."""
    copy = tmp_path / "own.db"
    with closing(sqlite3.connect(shop.url.removeprefix("sqlite:///"))) as source, closing(sqlite3.connect(copy)) as own:
        source.backup(own)
    return replace(shop, url=f"sqlite:///{copy}")
