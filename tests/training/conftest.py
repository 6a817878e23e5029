"""Fixtures of the tests of training."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import sqlite_uri
from tests.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def each_log_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a decision log that nobody wrote yet, on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'log.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.make_migrated()
        yield url
        server.drop(url)


@pytest.fixture(scope="session")
def outside_logs(root: Path) -> Path:
    """The folder of the outside logs; the test is left out where there is none."""
    named = os.environ.get("CHANNELCHOICE_LOGS")
    places = [Path(named)] if named else [root / "data", root.parent / "shared" / "data"]
    for place in places:
        if (place / "starbucks_decisions.parquet").is_file():
            return place
    pytest.skip(
        "no outside logs: put starbucks_decisions.parquet, starbucks_events.parquet and hillstrom_email_rct.parquet into data/, "
        "or name their folder in CHANNELCHOICE_LOGS"
    )


@pytest.fixture(scope="session")
def mlflow_server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real `mlflow server` on loopback that serves artifacts too, stopped at the end."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        sqlite_uri(folder / "mlflow.db"),
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    url = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _await_health(url, process, folder / "server.log")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _await_health(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until the server answers; a server that ended or does not answer in two minutes fails with its log."""
    for _ in range(1200):
        try:
            with urlopen(f"{url}/health", timeout=5) as answer:
                assert answer.status == 200
            return
        except OSError:
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
    raise AssertionError(f"the MLflow server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Dask cluster of two worker processes."""
    from distributed import LocalCluster

    started = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")  # type: ignore[no-untyped-call]
    with started as found:
        yield found.scheduler_address
