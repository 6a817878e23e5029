"""`mlflow models serve` with the very model that the service scores by, asked for the very rows: what scoring alone costs there."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import cpu_seconds, memory_megabytes
from tests.benchmarks.subject import Subject
from tests.benchmarks.workload import FloatArray, World

_WAIT_SECONDS = 120
FORMS = ("inputs", "dataframe_split")
"""How rows may be sent."""


class Served:
    """A running `mlflow models serve` with one worker."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._process = process
        self._url = url

    def score(self, body: bytes) -> FloatArray:
        """Post rows, and return their probabilities."""
        return np.array(json.loads(self._post(body))["predictions"])

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(  # the address is this machine's own
            f"{self._url}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_WAIT_SECONDS) as answer:  # likewise
            return bytes(answer.read())

    def cpu_seconds(self) -> float:
        """Return what its processes have used."""
        return sum(cpu_seconds(pid) for pid in self._processes())

    def memory_megabytes(self) -> float:
        """Return what its processes hold."""
        return sum(memory_megabytes(pid) for pid in self._processes())

    def load(self, bodies: Sequence[bytes], in_flight: int) -> tuple[float, float]:
        """Post all bodies, so many at a time; return the CPU seconds of one, and how many a second were answered."""
        cpu, wall = self.cpu_seconds(), time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            for answer in pool.map(self._post, bodies):
                if not answer:
                    raise RuntimeError("mlflow models serve answered nothing")
        wall = time.perf_counter() - wall
        return (self.cpu_seconds() - cpu) / len(bodies), len(bodies) / wall

    def _processes(self) -> list[int]:
        found, left = [], [self._process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            tasks = Path(f"/proc/{pid}/task")
            for task in tasks.iterdir():
                left += [int(child) for child in (task / "children").read_text().split()]
        return found


def body_of(rows: FloatArray, form: str) -> bytes:
    """Return rows as MLflow takes them: bare, or as a data frame with named columns; a missing value is NaN, which its parser reads."""
    if form == "inputs":
        return json.dumps({form: rows.tolist()}).encode()
    names = [f"Column_{number}" for number in range(rows.shape[1])]
    return json.dumps({form: {"columns": names, "data": rows.tolist()}}).encode()


class Rival:
    """What a world asks of `mlflow models serve`."""

    def __init__(self, served: Served, subject: Subject) -> None:
        self.served = served
        self._bodies = {form: [body_of(rows, form) for rows in subject.matrices] for form in FORMS}
        booster = subject.world.booster()
        for form in FORMS:
            for rows, body in zip(subject.matrices[:4], self._bodies[form], strict=False):
                expected = 1 / (1 + np.exp(-booster.raw_scores(rows)))
                if not np.allclose(served.score(body), expected, rtol=1e-12):
                    raise RuntimeError("mlflow models serve scores otherwise")

    def load(self, form: str, in_flight: int) -> tuple[float, float]:
        """Post every body once; return the CPU seconds of one, and how many a second were answered."""
        return self.served.load(self._bodies[form], in_flight)


@contextmanager
def mlflow_server(world: World, folder: Path) -> Iterator[Served]:
    """Serve a world's one model until the block ends."""
    import lightgbm
    import mlflow.lightgbm

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = folder / "mlflow-model"
    booster = lightgbm.Booster(model_str=(world.bundle / "response.txt").read_text())
    mlflow.lightgbm.save_model(booster, str(place), pip_requirements=["lightgbm"])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(place), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (
        open(folder / "mlflow.log", "wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            served = Served(process, f"http://127.0.0.1:{port}")
            _wait(served._url, process, folder / "mlflow.log")
            yield served
        finally:
            for pid in reversed(served._processes()):
                os.kill(pid, 15)


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=1):  # the address is this machine's own
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"mlflow models serve did not start: {log.read_text()[-2000:]}")
