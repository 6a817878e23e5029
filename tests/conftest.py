"""Fixtures that more than one suite needs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, postgres_server

# Threads of LightGBM that wait for each other in a loop take ten times as long on a busy machine; read when its library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process; each test has databases of its own."""
    with postgres_server("fsync=off", "max_connections=200") as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """An empty MLflow database, to be copied: making one takes ten seconds, a copy none. Made in a process of its own."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    script = f"from mlflow.tracking import MlflowClient\nMlflowClient({sqlite_uri(path)!r}, {sqlite_uri(path)!r}).search_registered_models()"
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True)
    return path


@pytest.fixture
def mlflow_uri(mlflow_template: Path, tmp_path: Path) -> str:
    """The URI of a tracking store and registry with nothing in it."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return sqlite_uri(tmp_path / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    """The URL of a decision log that nobody wrote yet."""
    return f"sqlite:///{tmp_path / 'log.db'}"
